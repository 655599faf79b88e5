-- Facts that explain why a waiter, a group or a whole provider/model waits, of one instant.
--
-- KEYS
-- @include lib/requests/keys
-- ARGV
--   max_rows integer how many rows of each list, 0..100
--   subjects rest    what is asked about, as typed and as it stands in keys; nothing for the shard alone
-- Reply
--   JSON of requests/snapshot with waiter, lease, group, group_of_waiter, held, moves, minute_ends and recovering_us
--   besides; waiter, lease and group are left out where there is none of that name. A shard that nobody used is as
--   in requests/snapshot
-- Errors
--   SCHEMA the shard was written with another schema version; DAMAGED a key cannot be read
-- Cost
--   that of requests/snapshot, and a look at 5,000 leases, or 1,000 more, and 500 events at most
-- Invariant
--   changes nothing, the clock neither
-- @bind
-- @include lib/shard/look
-- @include lib/requests/types
-- @include lib/requests/capture_explain

return LOOK.reply(function()
  return cjson.encode(EXPLAIN.shard(tonumber(max_rows), { unpack(ARGV, subjects) }))
end)
