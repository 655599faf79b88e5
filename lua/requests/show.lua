-- One instant of a request shard as aligned lines, for an operator with redis-cli.
--
-- KEYS
-- @include lib/requests/keys
-- ARGV
--   max_rows integer how many rows of each list, 0..100
-- Reply
--   array of lines: title, totals, then a table each of windows, counters, waiting groups, members
--   and registrations
-- Errors
--   SCHEMA the shard was written with another schema version
-- Cost
--   as requests/snapshot
-- Invariant
--   changes nothing, the clock neither
-- @bind
-- @include lib/shard/schema
-- @include lib/requests/capture_text

return SCHEMA.refusal() or REPORT.lines(string.match(K.meta, '{rq:(.-)}'), CAPTURE.shard(tonumber(max_rows)))
