-- One member's operations on a request shard, in order, once.
--
-- KEYS
--   meta               hash    schema, generation, run_id; record, settings, window_<domain> (lib/requests/state);
--                              @member -> number of its last batch, space, its reply
--   aliases            zset    member NUL alias, by cap
--   leases             hash    lease id -> member|domain|group|acquired_us|limit|cuts|effective_max|generation|hold|cost
--   members            zset    member, by expiry in microseconds
--   checks             zset    member, by when to look at it unless its heartbeat comes before
--   intervals          hash    member -> a third of its TTL in microseconds
--   suspects           zset    member to whom nobody listens, by since when; 0 once it was heard of
--   held               zset    member NUL lease, waiter or alias NUL id, by name
--   waiters            hash    attempt id -> member|domain|group|arrival|deadline_us|cost
--   aside              zset    member NUL attempt id of suspects that stand in no line, by name
--   line_chat          zset    place NUL group, by tag
--   line_embedding     zset    place NUL group, by tag
--   line_image         zset    place NUL group, by tag
--   line_healthcheck   zset    place NUL group, by tag
--   fifo               zset    domain NUL group NUL arrival NUL attempt id, by name
--   groups             hash    group -> weight|tag|place|waiting|touched_us|indexed_us
--   idle_groups        zset    group, by last turn in microseconds
--   deadlines          zset    attempt id, by deadline in microseconds
--   holds              zset    lease id, by longest hold in microseconds
--   budgets            hash    budget -> registered|burst|learned|level|at_us|remaining|remaining_at_us|heard_us
--   sharers            zset    member, by ticket of its entry; NUL member, by minus the ticket of its last telling
--   finished           zset    lease id, by order of ending times 2, plus 1 if it expired
--   events             stream  transitions, the last 8192
-- ARGV
--   member_id          string  who calls
--   batch_number       integer one more than this member's last
--   operations         rest    name and arguments of each operation, one after another:
--                              acquire id domain group weight cost wait ("" for ever, "try", or
--                              microseconds)
--                              release id outcome retry_after_us generation used ("", "unsent", or tokens)
--                              scope ("", or "quota": the hint speaks of a budget)
--                              cancel id; state id; register alias cap tuning; leave; sweep; share
--                              learn budget limit remaining at_us ("" for what was not said)
-- Reply
--   JSON [now_us, next_wake_us, generation, results, notices]: a result per operation
--   (granted, waiting, denied, error, released, duplicate, stale_lease, wrong_generation,
--   unknown_lease, cancelled, registered, learned, left, leaving, unknown, swept, share), and what befell waiters
--   and leases of the caller (granted, denied, lost), or that sharers are to ask anew (share). Other members get their notices by channel.
-- Errors
--   NOMEMBER the caller is not a member (any more); OLDBATCH a late duplicate; BADBATCH an
--   operation that is not one, lacks arguments, or names no domain, outcome or budget: nothing
--   happened
-- Cost
--   O(log n) per operation, of leases one command for each key; besides, in one call, at most 64
--   grants, 64 denials, 64 members looked at, 200 ended (leases, waiters and aliases of members that
--   are gone, those members, overdue holds) and 200 waiters set aside or put back; one PTTL, and a
--   PEXPIRE per key that the call may have made
-- Invariant
--   in_flight is the number of live leases; no grant above window or cap; nobody passes a waiter
--   that may go (spec 01, 4 and 5; spec 03, Order)
-- @bind
local GROUP_EXTRA = {}
-- @include lib/clock
-- @include lib/time
-- @include lib/int
-- @include lib/real
-- @include lib/shard
-- @include lib/keep
-- @include lib/listening
-- @include lib/requests/state
-- @include lib/requests/budgets
-- @include lib/requests/draws
-- @include lib/groups
-- @include lib/requests/save
-- @include lib/requests/window
-- @include lib/requests/records
-- @include lib/requests/turns
-- @include lib/requests/leases
-- @include lib/watch
-- @include lib/suspects
-- @include lib/requests/queue
-- @include lib/requests/settle
-- @include lib/requests/settings
-- @include lib/requests/operations

local number = tonumber(batch_number)
SHARD.read(member_id, META_FIELDS)
local repeated = SHARD.replay(number)
if repeated then
  return repeated
end

local called, places, ids, new_ids = {}, {}, {}, {}
local at, last = operations, #ARGV
while at <= last do
  local operation = OPERATIONS[ARGV[at]]
  if not operation or at + operation[1] > last then
    return redis.error_reply('BADBATCH operation ' .. tostring(ARGV[at]))
  end
  local place, words, lease = operation[3], operation[4], operation[5]
  if words and not words[ARGV[at + place]] then
    return redis.error_reply('BADBATCH ' .. ARGV[at] .. ' ' .. ARGV[at + place])
  end
  local n = #called + 1
  called[n], places[n] = operation, at
  if lease then
    ids[#ids + 1] = ARGV[at + 1]
    new_ids[#new_ids + 1] = lease == 'to_be' and ARGV[at + 1] or nil
  end
  at = at + operation[1] + 1
end

lease_writes = #called > 1 and {} or nil
load_meta()
if not meta.generation then
  return redis.error_reply('NOMEMBER ' .. member_id) -- the shard is gone: nothing may grow here
end
caller = member_id
settle()
if not SUSPECTS.is_member(member_id, ended_left < MOST_ENDED) then
  save({})
  SHARD.publish('')
  return redis.error_reply('NOMEMBER ' .. member_id)
end

if #ids > 1 then
  LEASES.read_ahead(ids, new_ids)
end
local results = {}
for i = 1, #called do
  local operation, from = called[i], places[i]
  results[i] = operation[2](unpack(ARGV, from + 1, from + operation[1]))
end

local reply = SHARD.reply(member_id, next_wake_us(), results)
save(has_left and {} or SHARD.keeping(member_id, number, reply))
SHARD.publish(member_id)
return reply
