-- Statements of members after their pool lost state (design 06, *Generations*), and its regular look at the pool.
-- @include lib/tasks/operations
-- @include lib/tasks/rebuild
LEASES.stated_fields = 9 -- of a lease that a member states, as they stand in ARGV

-- The task of a stated lease, out of its place; nil where the lease cannot be held: it ended, or the task runs elsewhere.
function TASKS.take_stated(lease)
  local id = lease.task_id
  local task = TASKS.read(id)
  if task then
    return QUEUE.remove(id, task) and task
  elseif lease.is_cell or redis.call('EXISTS', TASKS.arq_key('result', id)) == 1 then
    return nil
  end
  task = RESTORE.task(id, { group = lease.group, signature = lease.signature, queue = lease.score }, true)
  LINES.set_terms(GROUPS.of(task.group), tonumber(task.weight), task.limit)
  return task
end

-- Adopt a lease that the pool does not know; returns whether it is held now.
function LEASES.adopt(lease, in_progress_ms)
  local id, task = lease.task_id, not LEASES.ended(lease.id) and TASKS.take_stated(lease)
  if not task then
    return false
  end
  task.score, task.tries = lease.score, lease.job_try - 1
  TASKS.write(id, task)
  local g = GROUPS.of(task.group)
  g.running = (tonumber(g.running) or 0) + 1
  GROUPS.touch(g)
  LINES.change(g)
  LEDGER.take(task.signature)
  RESERVE.policy().on_acquire(g, { signature = task.signature, borrowed = {} })
  meta.running = meta.running + 1
  LEASES.make(lease.id, caller, LEASES.packed(caller, id, task.group, task.signature, lease.acquired_us, lease.is_cell))
  LOST.watch(caller, lease.id, task.losses)
  redis.call('SET', TASKS.arq_key('in-progress', id), K.queue, 'PX', in_progress_ms, 'NX')
  emit('lease_adopted', 'lease_id', lease.id, 'member_id', caller, 'task_id', id)
  return true
end

-- The leases that the caller holds, each of nine arguments. Answered with those that it holds no more, and with those
-- of which the payload is gone, which the caller has.
function OPERATIONS.hold(in_progress_ms)
  local stale, wanted = {}, {}
  redis.call('HDEL', K.pushes, caller) -- it counts anew; what it may not know of the inventory tells
  redis.call('ZREM', K.idle, caller)
  for at = first_argument + 1, last_argument, LEASES.stated_fields do
    local lease = { id = ARGV[at], task_id = ARGV[at + 1], group = ARGV[at + 2], signature = ARGV[at + 3],
      acquired_us = ARGV[at + 4], score = ARGV[at + 5], job_try = tonumber(ARGV[at + 6]), is_cell = ARGV[at + 7] == 'cell',
      has_payload = ARGV[at + 8] == '1' }
    local text, quoted = LEASES.text(lease.id), '"' .. lease.id .. '"'
    local is_held
    if text then
      is_held = LEASES.parse(text).member == caller
    else
      is_held = LEASES.adopt(lease, in_progress_ms)
    end
    if not is_held then
      stale[#stale + 1] = quoted
    elseif lease.has_payload and redis.call('EXISTS', TASKS.arq_key('job', lease.task_id)) == 0 then
      wanted[#wanted + 1] = quoted
    end
  end
  return '["held",[' .. table.concat(stale, ',') .. '],[' .. table.concat(wanted, ',') .. ']]'
end

-- The payload of a task that the caller runs, where the pool has lost it: a later try needs it.
function OPERATIONS.payload(lease_id, payload)
  local lease, unknown = LEASES.own(lease_id, caller)
  if not lease then
    return unknown
  end
  redis.call('SET', TASKS.arq_key('job', lease.task_id), payload, 'NX')
  local task, terms = TASKS.read(lease.task_id), RESTORE.job(payload, {})
  if task and terms then
    task.fn, task.weight, task.limit = terms.fn, terms.weight, terms.limit
    TASKS.write(lease.task_id, task)
    LINES.set_terms(GROUPS.of(task.group), tonumber(task.weight), task.limit)
  end
  return '["set"]'
end

-- Sweep a pool, so that damage is found without other calls; with how long until the next look, what the caller is to
-- remember, and jobs that are lost.
function OPERATIONS.sweep()
  DAMAGE.check()
  local next_us = meta.running > 0 and SUSPECTS.next_check_us()
  return '["swept",' .. (next_us and int(math.max(0, next_us - now_us)) or 'null') .. ',' .. MEMORY.text() .. ','
    .. RESTORE.lost_text() .. ']'
end

FOR_MEMBERS.hold, FOR_MEMBERS.payload = true, true
