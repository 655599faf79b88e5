-- One instant of a request shard as JSON.
--
-- KEYS
-- @include lib/requests/keys
-- ARGV
--   max_rows integer how many rows of each list, 0..100
-- Reply
--   JSON object as built in lib/requests/capture; times (*_us) are text of whole microseconds, an
--   empty list may stand as {}
-- Errors
--   SCHEMA the shard was written with another schema version; DAMAGED a key cannot be read
-- Cost
--   O(log n) per row, of at most 100 members, 100 registrations, 100 groups per domain and 1,000
--   overdue leases
-- Invariant
--   changes nothing, the clock neither; a shard that nobody registered stays without a key
-- @bind
-- @include lib/shard/look
-- @include lib/requests/types
-- @include lib/requests/capture

return LOOK.reply(function()
  return cjson.encode(CAPTURE.shard(tonumber(max_rows)))
end)
