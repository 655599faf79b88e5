-- One member's operations on a task pool, in order, once.
--
-- KEYS
-- @include lib/tasks/keys
-- ARGV
--   member_id    string  who calls
--   batch_number integer one more than this member's last
--   operations   rest    name, number of arguments and arguments of each operation, one after another:
--                        submit id group weight admitted_limit signature not_before_us payload ttl_ms function tries
--                        (not_before_us: microseconds since the epoch, which the user asks for, or empty
--                        for now: it is compared with the server's TIME and never taken for the time)
--                        admit slots in_progress_ms resources_under_pressure seen
--                        finish lease_id result result_ttl_ms keep_in_progress_ms [record name value]...
--                        drop lease_id reason [model status]
--                        retry lease_id delay_us counts [cooling_resource [reason model status]] (counts: 0 a
--                        try, 1 nothing, 2 a loss; with a reason, of a failed try, a task of a run waits for
--                        the next salvage round of its row group)
--                        discard id result result_ttl_ms; expire id result result_ttl_ms; fail_lost id result result_ttl_ms
--                        evict lease_id (an operator's: the task goes back, and the holder gets a notice)
--                        claim resource holder limit; serve function...; set_state state; leave; inventory after
--                        report kind task_id lease_id
--                        configure policy reserve_after_us events max_losses [field value]...
--                        run_submit run plan workflow; run_collect run; run_written run row_group; run_cancel run
--                        run_accept run; run_refuse run reason; run_drive run owner; run_used run column json
--                        sweep; recall memory; payload lease_id payload
--                        hold in_progress_ms [lease_id task_id group signature acquired_us score try kind has_payload]...
--                        (kind: cell or empty)
-- Reply
--   JSON [now_us, next_wake_us, generation, results, notices, sequence]: a result per operation (accepted,
--   known, refused, error, admitted, released, duplicate, stale_lease, unknown_lease, discarded, unknown,
--   claimed, served, said, set, inventory, held, recalled, swept, left, leaving, progress, stopped, written, ended,
--   cancelled, noted, evicted, ended, recovering), and what the caller
--   should look at (work, task, due, row_group), a lease that an operator ended (lost),
--   or that somebody set something (set). Other members get their
--   notices by channel. sequence is the number of the shard's last event. If tasks were admitted, an array:
--   that JSON, then payloads, of which each lease names its own from 1, a cell none (0); a repeated batch is
--   answered with the JSON alone.
-- Errors
--   NOMEMBER the caller is not a member (any more), or of one operation: it has left in this batch;
--   OLDBATCH a late duplicate; BADBATCH operations that cannot be read
-- Cost
--   O(signatures + log n) per admitted task, where no first task may go of at most 64 tasks in 8 groups
--   behind those that the member does not serve, with the policy that borrows of at most 32 heads besides,
--   and as much again for each of 32 asks to see who stands first; O(log n) per claim; O(leases) to change
--   the policy; O(tasks it frees) per finished one; O(root tasks of the row groups that it opens) to begin
--   a run or drive it; O(cells of a row group) to write one or, of each open one, to cancel a run;
--   besides, in one call, at most 200 ended (leases, functions and driven runs of members that are gone,
--   each run with its claims, and those members), 64 members looked at, 64 due tasks, 64 parked or brought
--   back and 64 wake-ups, for which it looks at 512 idle members and takes 4,096 looks at what these serve;
--   one PTTL, and a PEXPIRE per key that the call may have made. A pool does not run in cluster mode:
--   arq's keys are named by the task and not declared.
-- Invariant
--   the ledger is the sum over live leases; a task is queued, running or finished, never two of
--   these (design 01, *Invariants* 2 to 4)
-- @bind
-- @include lib/tasks/operations
-- @include lib/tasks/save
-- @include lib/tasks/restate
-- @include lib/shard/batch

local reply = BATCH.run(member_id, tonumber(batch_number), operations)
if #payloads == 0 or type(reply) ~= 'string' then
  return reply
end
table.insert(payloads, 1, reply)
return payloads
