-- Task leases, and arq's keys over a task's life (design 10, *Keys over a job's life*): the lease exists
-- exactly while the task runs, the task exists exactly while it is not finished.
-- @include lib/tasks/select
-- @include lib/runs/state
local PUSHES = { most_bytes = 65536 } -- see lib/tasks/pushes
local payloads = {} -- of the tasks that this call admits, in order
local expired = {} -- tasks whose payload was gone when their turn came
local lost = {} -- tasks that were lost too often, with their members
local are_aborts_pending -- whether somebody has asked arq to abort a job

-- Whether a job is to be aborted; asking takes the request back.
function TASKS.take_abort(id)
  if are_aborts_pending == nil then
    are_aborts_pending = redis.call('EXISTS', 'arq:abort') == 1
  end
  -- pcall: another program may have made it a key of another type, which must not end the call.
  return are_aborts_pending and redis.pcall('ZREM', 'arq:abort', TASKS.name_of(id)) == 1
end

-- A task is over: what remains of it is its result. One that `was_started` has a mark that it runs.
function TASKS.forget(id, was_started)
  local task = TASKS.read(id) or { losses = 0, run = '' }
  LOST.forget(id, task)
  RUNS.count_task(task, -1)
  known_tasks[id] = false
  redis.call('HDEL', K.tasks, id)
  redis.call('ZREM', K.queue, TASKS.name_of(id))
  if was_started then
    redis.call('DEL', TASKS.arq_key('job', id), TASKS.arq_key('in-progress', id))
  else
    redis.call('DEL', TASKS.arq_key('job', id))
  end
  TASKS.take_abort(id)
end

function LEASES.packed_for_member(lease_id, id, task, acquired_us, is_aborted, payload_index)
  return '["' .. table.concat({ lease_id, id, task.group, task.signature, acquired_us, task.score,
    int(task.tries + 1), is_aborted and '1' or '0', int(payload_index), task.run, task.column,
    task.number }, '","') .. '"]'
end

-- A job's payload, false if it has expired. Under arq's names another program may have put anything:
-- what is no text is no job either, which its worker says in a result.
function TASKS.payload_of(id)
  local payload = redis.pcall('GET', TASKS.arq_key('job', id))
  return type(payload) == 'table' and 'a key of another type' or payload
end

-- The place in the reply, from 1, of a payload that goes with it; 0 for none.
function TASKS.place_of(payload)
  if not payload then
    return 0
  end
  payloads[#payloads + 1] = payload
  return #payloads
end

-- Put a task back, for now or for later; of a run only while it still counts.
function TASKS.put_back(id, task, available_us, tries)
  if not RUNS.is_wanted(task) then
    TASKS.forget(id)
    return
  end
  task.tries = tries
  QUEUE.let_wait(id, task, available_us)
end

-- Grant the first task of a group to a member; nil where its payload has expired, or where it was lost too
-- often: the caller gets its id, and ends it with `expire` or `fail_lost`. Should it not live to do so, the
-- task comes again after a minute.
function LEASES.grant(head, member, in_progress_ms)
  local g = GROUPS.of(head.group)
  local id, task
  id = head.suspect or head.behind
  if id then
    task = TASKS.read(id)
    QUEUE.remove(id, task)
  else
    id, task = QUEUE.take_head(g)
  end
  local is_cell = task.run ~= ''
  local payload = not is_cell and TASKS.payload_of(id)
  local is_lost = task.losses >= LOST.max()
  if is_lost or (not is_cell and not payload) then
    QUEUE.line_up_again(g)
    TASKS.put_back(id, task, now_us + 60000000, task.tries)
    if is_lost then
      lost[#lost + 1] = '["' .. id .. '","' .. (redis.call('HGET', K.losses, id) or '') .. '"]'
    else
      expired[#expired + 1] = '"' .. id .. '"'
    end
    return nil
  end
  g.running = (tonumber(g.running) or 0) + 1
  LINES.leave(g)
  GROUPS.take_turn(g, 1)
  QUEUE.line_up_again(g)
  LEDGER.take(task.signature)
  RESERVE.policy().on_acquire(g, head)
  meta.running, meta.admissions = meta.running + 1, meta.admissions + 1
  local lease_id = id .. '~' .. int(meta.admissions)
  if meta.running == 1 then
    EXPIRY.with_shard('leases')
    EXPIRY.with_shard('held')
  end
  LEASES.make(lease_id, member, LEASES.packed(member, id, task.group, task.signature, int(now_us), is_cell))
  LOST.watch(member, lease_id, task.losses)
  redis.call('SET', TASKS.arq_key('in-progress', id), K.queue, 'PX', in_progress_ms)
  STATE.emit_task('task_lease_acquired', 'task_id', id, 'lease_id', lease_id, 'member_id', member)
  return { id = id, lease_id = lease_id, task = task, payload = payload }
end

function LEASES.release(lease_id, lease, is_lost)
  LEASES.finish(lease_id, lease, is_lost)
  LOST.unwatch(lease.member, lease_id)
  LEDGER.release(lease.signature)
  meta.running = meta.running - 1
  local g = GROUPS.of(lease.group)
  g.running = g.running - 1
  GROUPS.touch(g)
  if not is_lost then
    redis.call('ZADD', K.idle, 'XX', 'INCR', 1, lease.member)
  end
  RESERVE.policy().on_release(g, lease.signature)
  LINES.change(g)
end

-- Put a task back that may have been lost too often: a job is ended by a member, which writes its result; of a
-- run its records are dropped.
function LOST.put_back(id, task, available_us, tries)
  if task.run ~= '' and task.losses >= LOST.max() then
    local members = redis.call('HGET', K.losses, id)
    TASKS.forget(id)
    RUNS.drop_cells(task, RUNS.failure_of(task, 'worker_lost: ' .. #split(members, ',')
      .. ' workers died while they made it: ' .. members))
  else
    TASKS.put_back(id, task, available_us, tries)
  end
end

-- A member that died gives its task back, which counts a loss and no try: also of a pushed one that it did not
-- say it has seen, as one that ends its process at once is never seen. One that left without giving a task back
-- counts a try, as does a lease that an operator ended: what ended it may again.
function LEASES.lose(lease_id, lease, why)
  emit('task_lease_expired', 'task_id', lease.task_id, 'lease_id', lease_id, 'member_id',
    lease.member, 'reason', why)
  LEASES.release(lease_id, lease, true)
  redis.call('DEL', TASKS.arq_key('in-progress', lease.task_id))
  local id, task = lease.task_id, TASKS.read(lease.task_id)
  if why == 'left' or why == 'evicted' then
    task.tries = task.tries + 1
  else
    LOST.count(id, task, lease.member)
  end
  LOST.put_back(id, task, now_us, task.tries)
end

-- Drop a task that waits; a running one is left to end.
function TASKS.discard(id)
  local task = TASKS.read(id)
  if not task or not QUEUE.remove(id, task) then
    return false
  end
  TASKS.forget(id)
  return true
end
