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
--   SCHEMA the shard was written with another schema version; DAMAGED a key cannot be read
-- Cost
--   as requests/snapshot
-- Invariant
--   changes nothing, the clock neither
-- @bind
-- @include lib/shard/look
-- @include lib/requests/types
-- @include lib/requests/capture_text

return LOOK.reply(function()
  return REPORT.lines(string.match(K.meta, '{rq:(.-)}'), CAPTURE.shard(tonumber(max_rows)))
end)
