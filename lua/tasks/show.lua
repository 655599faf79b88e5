-- One instant of a task pool as aligned lines, for an operator with redis-cli.
--
-- KEYS
-- @include lib/tasks/keys
-- ARGV
--   max_rows integer how many rows of each list, 0..100
-- Reply
--   array of lines: title, totals, then a table each of functions nobody serves, resources, what first tasks ask for, groups,
--   members and runs
-- Errors
--   SCHEMA the shard was written with another schema version
-- Cost
--   O(log n) per row, of at most 100 groups and members; O(n) in resources, signatures and runs
-- Invariant
--   changes nothing, the clock neither
-- @bind
-- @include lib/shard/schema
-- @include lib/tasks/capture_text

return SCHEMA.refusal() or REPORT.lines(string.match(K.meta, '{pool:(.-)}'), tonumber(max_rows))
