-- The operations of a task pool: submitting and admitting tasks, its settings, and what members report.
-- @include lib/tasks/settle
-- @include lib/tasks/memory
-- @include lib/tasks/ends

-- Whether arq's mark of an id is one that the end of a cron job has left, of an earlier instant than this one.
function TASKS.is_of_an_earlier_instant(mark, not_before_us)
  local prefix = K.queue .. ' '
  local score = type(mark) == 'string' and string.sub(mark, 1, #prefix) == prefix
    and tonumber(string.sub(mark, #prefix + 1))
  return score and not_before_us and math.floor(not_before_us / 1000 + 0.5) > score
end

-- The answer to the submit of an id that waits, runs or has a result, here or elsewhere: arq's keys are named
-- by ids alone. nil for a new one: its payload has expired, and it waits only to be told so, or the mark is of
-- a cron job's earlier instant. A cell has no payload.
function TASKS.known_as(id, not_before_us)
  local task, job, marked, result = TASKS.read(id), TASKS.arq_key('job', id), TASKS.arq_key('in-progress', id),
    TASKS.arq_key('result', id)
  if task and task.run ~= '' then
    return '["known"]'
  elseif redis.call('EXISTS', job, marked, result) == 0 then
    return nil
  elseif task then
    return '["known"]'
  end
  -- pcall: another program may have made it a key of another type.
  local mark, kept = redis.pcall('GET', marked), redis.pcall('GET', result)
  if TASKS.is_of_an_earlier_instant(mark, not_before_us) and not kept and redis.call('EXISTS', job) == 0 then
    return nil
  end
  local is_ours = string.find(tostring(mark), K.queue, 1, true) or string.find(tostring(kept), K.queue, 1, true)
  return is_ours and '["known"]' or '["known","elsewhere"]'
end

-- The result that refuses a new task; nil if it is accepted.
function CLAIMS.refusal_of(signature)
  if meta.state == 'draining' then
    return CLAIMS.refused('shutdown', '')
  end
  return CLAIMS.never_fits(signature)
end

-- `not_before_us` is an instant of the server's clock that the user asks for, or empty for now.
function OPERATIONS.submit(id, group_name, weight, admitted_limit, signature, not_before_us, payload,
  ttl_ms, function_name, tries)
  local known = TASKS.known_as(id, tonumber(not_before_us))
  if known then
    return known
  end
  local refusal = CLAIMS.refusal_of(signature)
  if refusal then
    return refusal
  end
  if TASKS.read(id) and not TASKS.discard(id) then
    return '["known"]'
  end
  LINES.set_terms(GROUPS.of(group_name), tonumber(weight), admitted_limit)
  TASKS.set('job', id, payload, ttl_ms)
  TASKS.take_abort(id) -- one that was meant for an earlier job of this id
  QUEUE.let_wait_until(id, { group = group_name, arrival = QUEUE.next_arrival(), signature = signature,
    tries = tonumber(tries), run = '', column = '', number = '', fn = function_name, losses = 0, weight = weight,
    limit = admitted_limit }, tonumber(not_before_us))
  return CLASSES.serves(nil, function_name) and '["accepted"]' or '["accepted","not_served"]'
end

function SELECT.block_summary()
  local _, reasons = SELECT.next(member_id)
  local list = {}
  for reason, held_back in pairs(reasons) do
    list[#list + 1] = '"' .. reason .. '":' .. int(held_back)
  end
  return '{' .. table.concat(list, ',') .. '}'
end

-- Select, acquire and commit, at most `slots` times. A member that got less is idle: it is woken, or
-- given a task; `seen` is the number of the last one that it was given so, or empty if it takes none.
function OPERATIONS.admit(slots, in_progress_ms, resources_under_pressure, seen)
  local unseen = seen == '' and {} or PUSHES.unseen(seen, in_progress_ms)
  local leases, free, is_extended = {}, tonumber(slots) - #unseen, false
  expired, lost = {}, {}
  LEDGER.hint(resources_under_pressure)
  LOST.note_draining(member_id)
  while free > 0 do
    local head = SELECT.next(member_id)
    if not head and not is_extended then
      is_extended = true
      head = RUNS.extend_horizon() and SELECT.next(member_id)
    end
    if not head then
      break
    end
    local lease = LEASES.grant(head, member_id, in_progress_ms)
    if lease then
      leases[#leases + 1] = LEASES.packed_for_member(lease.lease_id, lease.id, lease.task, int(now_us),
        TASKS.take_abort(lease.id), TASKS.place_of(lease.payload))
      free = free - 1
    end
  end
  if free > 0 then
    EXPIRY.with_shard('idle')
    redis.call('ZADD', K.idle, int(free), member_id)
  else
    redis.call('ZREM', K.idle, member_id)
  end
  return '["admitted",[' .. table.concat(leases, ',') .. '],[' .. table.concat(unseen, ',') .. '],'
    .. int(meta.queued + meta.unserved + meta.suspect_tasks) .. ','
    .. (free > 0 and SELECT.block_summary() or '{}') .. ',['
    .. table.concat(expired, ',') .. '],"' .. meta.events .. '",[' .. table.concat(lost, ',') .. ']]'
end

-- Set the functions that the caller's workers run.
function OPERATIONS.serve()
  EXPIRY.with_shard('held')
  EXPIRY.with_shard('functions')
  for i = first_argument, last_argument do
    if redis.call('ZADD', K.held, 0, member_id .. '\0function\0' .. ARGV[i]) == 1 then
      redis.call('HINCRBY', K.functions, ARGV[i], 1)
    end
  end
  CLASSES.forget_served()
  CLASSES.sort_served() -- what waited for these can be admitted in this very batch
  return '["served"]'
end

-- Report an event of a task in its worker, for a pool that records such events.
function OPERATIONS.report(kind, task_id, lease_id)
  STATE.emit_task(kind, 'task_id', task_id, 'lease_id', lease_id, 'member_id', member_id)
  return '["said"]'
end

function OPERATIONS.claim(resource, holder, limit)
  redis.call('HSET', K.meta, CLAIMS.noted(resource, holder), meta.generation)
  if CLAIMS.set(resource, holder, limit) then
    MEMBERS.notify_set()
  end
  return '["claimed",' .. int(LEDGER.limit_of(resource)) .. ']'
end

-- Pause, drain or open the pool again.
function OPERATIONS.set_state(state)
  MEMORY.note_decided('state')
  if meta.state ~= state then
    emit('pool_state_changed', 'from', meta.state == '' and 'open' or meta.state, 'to',
      state == '' and 'open' or state, 'member_id', member_id)
    meta.state = state
    MEMBERS.notify_set()
  end
  return '["set"]'
end

-- Set the policy, the recorded events and how often a task may be lost; the policy's settings follow as pairs of field
-- and value.
function OPERATIONS.configure(policy, reserve_after_us, events_kept, max_losses)
  local before = SETTINGS.in_force()
  MEMORY.note_decided('settings')
  MEMORY.note_decided('config')
  meta.reserve_after_us, meta.events = tonumber(reserve_after_us), events_kept
  meta.max_losses = tonumber(max_losses)
  redis.call('DEL', K.config)
  EXPIRY.with_shard('config')
  for i = first_argument + 4, last_argument, 2 do
    redis.call('HSET', K.config, ARGV[i], ARGV[i + 1])
  end
  borrowing = nil
  if meta.policy ~= policy then
    meta.policy = policy
    BORROW.recount()
  end
  if SETTINGS.emit_change(before, SETTINGS.in_force()) then
    MEMBERS.notify_set()
  end
  return '["set"]'
end

-- End the caller's membership: its tasks return to the queue, 200 a call.
function OPERATIONS.leave()
  return MEMBERS.leave() and '["left"]' or '["leaving"]'
end

-- Read the leases that a batch ends, with their tasks and groups, in few commands.
function STATE.read_ahead(ids, new_ids)
  LEASES.read_ahead(ids, new_ids)
  local task_ids, names, n = {}, {}, 0
  for i = 1, #ids do
    local text = LEASES.text(ids[i])
    if text then
      local lease = LEASES.parse(text)
      n = n + 1
      task_ids[n], names[n] = lease.task_id, lease.group
    end
  end
  TASKS.read_ahead(task_ids)
  GROUPS.read_ahead(names)
end

FOR_MEMBERS.admit, FOR_MEMBERS.serve, FOR_MEMBERS.run_submit, FOR_MEMBERS.run_collect = true, true, true, true
