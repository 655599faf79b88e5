-- Facts that explain why a task, a group, a run or a whole pool waits, of one instant.
--
-- KEYS
-- @include lib/tasks/keys
-- ARGV
--   max_rows integer how many groups and members, 0..100
--   subjects rest    what is asked about, as typed and as it stands in keys; nothing for the pool alone
-- Reply
--   JSON of tasks/snapshot with task, run, resources, members, config, recovering_us, groups_in_line, first_task,
--   first_since_us, unserved, suspects and places besides; task and run are left out where there is none of that name. A
--   pool that nobody used has generation "" alone
-- Errors
--   SCHEMA the shard was written with another schema version; DAMAGED a key cannot be read
-- Cost
--   that of tasks/snapshot, a look at 5,000 leases at most, and at most 20 scans of 1,000 entries each for the lease
--   of a task and for the tasks of a run; of a group 1,000 tasks of each place beside the line
-- Invariant
--   changes nothing, the clock neither
-- @bind
-- @include lib/shard/look
-- @include lib/tasks/types
-- @include lib/tasks/capture_explain

return LOOK.reply(function()
  return cjson.encode(EXPLAIN.pool(tonumber(max_rows), { unpack(ARGV, subjects) }))
end)
