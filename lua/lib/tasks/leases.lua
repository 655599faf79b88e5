-- Task leases, and arq's keys over a task's life (spec 10, Keys over a job's life): the lease exists
-- exactly while the task runs, the task exists exactly while it is not finished.
local FINISHED_KEPT = 8192

local function grant_lease(g, in_progress_ms)
  local id = first_task(g)
  local task = read_task(id)
  dequeue(id, task)
  g.running = (tonumber(g.running) or 0) + 1
  take_turn(g, 1)
  line_up(g)
  take(task.signature)
  task.state = 'running'
  write_task(id, task)
  meta.running = meta.running + 1
  meta.admissions = meta.admissions + 1
  local lease_id = id .. '~' .. int(meta.admissions)
  redis.call('HSET', K.leases, lease_id, table.concat({ member_id, id, task.signature, int(now_us) },
    '|'))
  redis.call('ZADD', K.held, 0, member_id .. '\0lease\0' .. lease_id)
  redis.call('SET', 'arq:in-progress:' .. id, '1', 'PX', in_progress_ms)
  local score = redis.call('ZSCORE', K.queue, id)
  emit('task_lease_acquired', 'task_id', id, 'lease_id', lease_id, 'member_id', member_id)
  return '["' .. table.concat({ lease_id, id, task.group, task.signature, int(now_us), score or '0',
    task.run, task.column, task.number }, '","') .. '"]'
end

local function end_lease(lease_id, lease, expired)
  redis.call('HDEL', K.leases, lease_id)
  redis.call('ZREM', K.held, lease.member .. '\0lease\0' .. lease_id)
  meta.finished = meta.finished + 1
  redis.call('ZADD', K.finished, int(meta.finished * 2 + (expired and 1 or 0)), lease_id)
  if meta.finished % 64 == 0 then
    redis.call('ZREMRANGEBYRANK', K.finished, 0, -FINISHED_KEPT - 1)
  end
  give_back(lease.signature)
  meta.running = meta.running - 1
  local task = read_task(lease.task_id)
  local g = group(task.group)
  leave_line(g)
  g.running, g.touched_us, g.dirty = g.running - 1, now_us, true
  line_up(g)
  return task
end

-- A task is over: what remains of it is its result.
local function forget_task(id)
  redis.call('HDEL', K.tasks, id)
  redis.call('DEL', 'arq:job:' .. id, 'arq:retry:' .. id)
  redis.call('ZREM', 'arq:abort', id)
  redis.call('ZREM', K.queue, id)
end

-- A member that died gives its task back to the head of its group: it keeps its arrival.
local function lose_lease(lease_id, lease, why)
  emit('task_lease_expired', 'task_id', lease.task_id, 'lease_id', lease_id, 'member_id',
    lease.member, 'reason', why)
  local task = end_lease(lease_id, lease, true)
  redis.call('DEL', 'arq:in-progress:' .. lease.task_id)
  if is_wanted(task) then
    enqueue(lease.task_id, task)
  else
    forget_task(lease.task_id)
  end
end

-- Drop a task that waits; a running one is left to end.
local function discard_waiting(id)
  local task = read_task(id)
  if not task or task.state == 'running' then
    return false
  end
  if task.state == 'ready' then
    line_up(dequeue(id, task))
  else
    redis.call('ZREM', K.delayed, id)
    meta.delayed = meta.delayed - 1
  end
  forget_task(id)
  return true
end
