-- One instant of a task pool for programs: what waits, what is out, and why nothing goes.
--
-- KEYS
-- @include lib/tasks/keys
-- ARGV
--   max_rows integer how many groups, 0..100
-- Reply
--   JSON {generation, now_us, state, policy, queued, delayed, parked, running, limits, leased, kept,
--   groups, is_complete, reasons, due_us}; a pool that nobody used has generation "" alone
-- Errors
--   SCHEMA the shard was written with another schema version; DAMAGED a key cannot be read
-- Cost
--   O(log n) per row, and at most 1,000 tasks; O(n) in resources and signatures
-- Invariant
--   changes nothing, the clock neither
-- @bind
-- @include lib/shard/look
-- @include lib/tasks/types
-- @include lib/tasks/capture_view

return LOOK.reply(function()
  return cjson.encode(VIEW.pool(tonumber(max_rows)))
end)
