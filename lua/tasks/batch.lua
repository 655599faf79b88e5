-- One member's operations on a task pool, in order, once.
--
-- KEYS
--   meta        hash    schema, generation, run_id; record (lib/tasks/state): clock, counts, policy, who stands first;
--                       @member -> number of its last batch, space, its reply
--   claims      zset    by name: after "@" holder NUL resource NUL limit; after "=" if it counts, "~" if it rests,
--                       resource NUL limit NUL holder; after "!" member NUL run that it attends
--   limits      hash    resource -> limit, the smallest claim that counts
--   ledger      hash    resource -> amount out on leases
--   config      hash    settings of the policy that borrows
--   tasks       hash    task id -> group|arrival|signature|score|tries|run|column|number|function|losses
--   queue       zset    task name, by available-at in milliseconds of the server's clock: where arq's Job looks
--   ready       zset    class NUL line NUL tag NUL place NUL group, by name
--   signatures  hash    class (signature;function) -> groups in its open line|in its capped line|their weight
--   fifo        zset    group NUL arrival NUL task id, by name
--   groups      hash    group -> weight|tag|place|waiting|touched_us|indexed_us|running|away|admitted_limit|head|signature|line|out|debt
--   idle_groups zset    group, by last turn in microseconds
--   delayed     zset    task id, by available-at in microseconds
--   parked      zset    signature NUL arrival NUL task id, by name: asks for more than a limit
--   unserved    zset    function NUL arrival NUL task id, by name: nobody serves the function
--   suspect_tasks zset  arrival NUL task id, by name: lost with a member that died
--   leases      hash    lease id -> member|task id|group|signature|acquired_us|cell
--   members     zset    member, by expiry in microseconds
--   checks      zset    member, by when to look at it unless its heartbeat comes before
--   intervals   hash    member -> a third of its TTL in microseconds
--   suspects    zset    member to whom nobody listens, by since when; 0 once it was heard of
--   held        zset    member NUL lease or function NUL id, by name
--   functions   hash    function -> members that run it
--   losses      hash    task id -> the members that it was lost with, "," between
--   watched     hash    member -> "alone" or "beside", space, the lease of the suspect that it runs
--   idle        zset    member, by free slots
--   pushes      hash    member -> tasks given to it unasked|in_progress_ms|lease ids of which it may not know
--   finished    zset    lease id, by order of ending times 2, plus 1 if it expired
--   events      stream  transitions, the last 8192
--   runs        hash    run id -> its plan as JSON; run id NUL workflow -> the workflow
--   progress    hash    run NUL name -> count; NUL refused, refusals: why no worker makes it; NUL failed: cells
--                       of a column that failed before one was made; NUL stopped: the column of which all did
--   cells       hash    run NUL record NUL column -> value as JSON; # columns done; ! why dropped
--   row_groups  hash    run NUL row group -> records that are still missing; NUL column -> its tasks
--   checkpoints zset    run NUL row group, whose records wait to be written out
-- ARGV
--   member_id    string  who calls
--   batch_number integer one more than this member's last
--   operations   rest    name, number of arguments and arguments of each operation, one after another:
--                        submit id group weight admitted_limit signature not_before_us payload ttl_ms function tries
--                        (not_before_us: microseconds since the epoch, which the user asks for, or empty
--                        for now: it is compared with the server's TIME and never taken for the time)
--                        admit slots in_progress_ms resources_under_pressure seen
--                        finish lease_id result result_ttl_ms keep_in_progress_ms [record name value]...
--                        drop lease_id reason; retry lease_id delay_us counts [cooling_resource] (counts:
--                        0 a try, 1 nothing, 2 a loss)
--                        discard id result result_ttl_ms; expire id result result_ttl_ms; fail_lost id result result_ttl_ms
--                        claim resource holder limit; serve function...; set_state state; leave
--                        say kind task_id lease_id
--                        configure policy reserve_after_us events max_losses [field value]...
--                        run_submit run plan workflow; run_collect run; run_written run row_group; run_cancel run
--                        run_accept run; run_refuse run reason
-- Reply
--   JSON [now_us, next_wake_us, generation, results, notices]: a result per operation (accepted,
--   known, refused, error, admitted, released, duplicate, stale_lease, unknown_lease, discarded, unknown,
--   claimed, served, said, set, left, leaving, progress, stopped, written, ended, cancelled, noted), and what the caller
--   should look at (work, task, due, row_group). Other members get their notices by channel. If tasks were
--   admitted, an array: that JSON, then payloads, of which each lease names its own from 1, a cell
--   none (0); a repeated batch is answered with the JSON alone.
-- Errors
--   NOMEMBER the caller is not a member (any more), or of one operation: it has left in this batch;
--   OLDBATCH a late duplicate; BADBATCH operations that cannot be read
-- Cost
--   O(signatures + log n) per admitted task, where no first task may go of at most 64 tasks in 8 groups
--   behind those that the member does not serve, with the policy that borrows of at most 32 heads besides,
--   and as much again for each of 32 asks to see who stands first; O(log n) per claim; O(leases) to change
--   the policy; O(tasks it frees) per finished one; O(root tasks of the row groups that it opens) to begin
--   a run or attend it; O(cells of a row group) to write one or, of each open one, to cancel a run;
--   besides, in one call, at most 200 ended (leases, functions and attended runs of members that are gone,
--   each run with its claims, and those members), 64 members looked at, 64 due tasks, 64 parked or brought
--   back and 64 wake-ups, for which it looks at 512 idle members and takes 4,096 looks at what these serve;
--   one PTTL, and a PEXPIRE per key that the call may have made. A pool does not run in cluster mode:
--   arq's keys are named by the task and not declared.
-- Invariant
--   the ledger is the sum over live leases; a task is queued, running or finished, never two of
--   these (spec 01, 2 to 4)
-- @bind
local OPERATIONS = {}
-- @include lib/clock
-- @include lib/time
-- @include lib/int
-- @include lib/real
-- @include lib/read_hash
-- @include lib/shard
-- @include lib/keep
-- @include lib/listening
-- @include lib/tasks/state
-- @include lib/groups
-- @include lib/tasks/lines
-- @include lib/tasks/save
-- @include lib/tasks/names
-- @include lib/tasks/classes
-- @include lib/tasks/cooling
-- @include lib/tasks/queue
-- @include lib/tasks/lost
-- @include lib/tasks/limits
-- @include lib/tasks/asks
-- @include lib/tasks/amounts
-- @include lib/tasks/strict
-- @include lib/tasks/borrow
-- @include lib/tasks/reserve
-- @include lib/tasks/select
-- @include lib/runs/state
-- @include lib/tasks/leases
-- @include lib/tasks/pushes
-- @include lib/watch
-- @include lib/suspects
-- @include lib/runs/attending
-- @include lib/tasks/settle
-- @include lib/tasks/settings
local first_argument, last_argument = 0, 0
-- @include lib/runs/row_groups
-- @include lib/runs/tracker
-- @include lib/runs/operations
-- @include lib/runs/refusals
-- @include lib/tasks/operations

local number = tonumber(batch_number)
SHARD.read(member_id, {})
local repeated = SHARD.replay(number)
if repeated then
  return repeated
end

local calls, at = {}, operations
while at <= #ARGV do
  local operation, count_of = OPERATIONS[ARGV[at]], tonumber(ARGV[at + 1])
  if not operation or not count_of or at + 1 + count_of > #ARGV then
    return redis.error_reply('BADBATCH operation ' .. tostring(ARGV[at]))
  end
  calls[#calls + 1] = { operation, at + 2, at + 1 + count_of }
  at = at + 2 + count_of
end

lease_writes = #calls > 1 and {} or nil
load_meta()
load_lines()
if not meta.generation then
  return redis.error_reply('NOMEMBER ' .. member_id) -- the shard is gone: nothing may grow here
end
caller = member_id
settle()
if not SUSPECTS.is_member(member_id, ended_left < MOST_ENDED) then
  settle_after()
  save({})
  SHARD.publish('')
  return redis.error_reply('NOMEMBER ' .. member_id)
end

local results = {}
for i = 1, #calls do
  first_argument, last_argument = calls[i][2], calls[i][3]
  results[i] = has_left and refused_to_left(ARGV[first_argument - 2])
    or calls[i][1](unpack(ARGV, first_argument, math.min(last_argument, first_argument + 9)))
end

settle_after()
local reply = SHARD.reply(member_id, next_wake_us(), results)
save(redis.call('ZSCORE', K.members, member_id) and SHARD.keeping(member_id, number, reply) or {})
SHARD.publish(member_id)
if #payloads == 0 then
  return reply
end
table.insert(payloads, 1, reply)
return payloads
