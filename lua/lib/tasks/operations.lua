-- The operations of a batch. Each returns its own result as JSON text; ids, names and signatures
-- arrive encoded, so that none can break a string.
local function submit(id, group_name, weight, admitted_limit, signature, delay_us, payload, ttl_ms)
  if redis.call('HEXISTS', K.tasks, id) == 1
    or redis.call('EXISTS', 'arq:result:' .. id, 'arq:in-progress:' .. id) > 0 then
    return '["known"]'
  end
  local refusal = never_fits(signature)
  if refusal then
    return refusal
  end
  local g = group(group_name)
  g.weight, g.admitted_limit, g.dirty = tonumber(weight), admitted_limit, true
  if ttl_ms == '' then
    redis.call('SET', 'arq:job:' .. id, payload)
  else
    redis.call('SET', 'arq:job:' .. id, payload, 'PX', ttl_ms)
  end
  local available_us = now_us + tonumber(delay_us)
  redis.call('ZADD', K.queue, int(math.floor(available_us / 1000)), id)
  local task = { group = group_name, arrival = string.format('%016.0f', next_place()),
    signature = signature, run = '', column = '', number = '' }
  if available_us > now_us then
    delay(id, task, available_us)
    line_up(g) -- its admitted limit may have changed
  else
    enqueue(id, task)
  end
  return '["accepted"]'
end

local function block_summary()
  local _, reasons = select_next()
  local list = {}
  for reason, held_back in pairs(reasons) do
    list[#list + 1] = '"' .. reason .. '":' .. int(held_back)
  end
  return '{' .. table.concat(list, ',') .. '}'
end

-- Select, acquire and commit, at most `slots` times. A member that got less is idle: it is woken.
local function admit(slots, in_progress_ms)
  local leases, free = {}, tonumber(slots)
  while free > 0 do
    local g = select_next()
    if not g then
      break
    end
    leases[#leases + 1] = grant_lease(g, in_progress_ms)
    free = free - 1
  end
  if free > 0 then
    redis.call('ZADD', K.idle, int(free), member_id)
  else
    redis.call('ZREM', K.idle, member_id)
  end
  return '["admitted",[' .. table.concat(leases, ',') .. '],' .. int(meta.queued) .. ','
    .. (free > 0 and block_summary() or '{}') .. ']'
end

-- The caller's live lease, or what is known of the id instead.
local function own_lease(lease_id)
  local text = redis.call('HGET', K.leases, lease_id)
  local lease = text and parse_lease(text)
  if lease and lease.member == member_id then
    return lease
  end
  local ended = redis.call('ZSCORE', K.finished, lease_id)
  if lease or (ended and tonumber(ended) % 2 == 1) then
    return nil, '["stale_lease"]'
  end
  return nil, ended and '["duplicate"]' or '["unknown_lease"]'
end

local function end_task(lease_id, lease)
  local task = end_lease(lease_id, lease, false)
  forget_task(lease.task_id)
  return task
end

-- Values of cells follow the four arguments; they are read from ARGV, as they may be thousands.
local function finish(lease_id, result, result_ttl_ms, keep_in_progress_ms)
  local lease, unknown = own_lease(lease_id)
  if not lease then
    return unknown
  end
  local id = lease.task_id
  local task = end_task(lease_id, lease)
  if result ~= '' then
    if result_ttl_ms == '' then
      redis.call('SET', 'arq:result:' .. id, result)
    else
      redis.call('SET', 'arq:result:' .. id, result, 'PX', result_ttl_ms)
    end
  end
  if keep_in_progress_ms == '' then
    redis.call('DEL', 'arq:in-progress:' .. id)
  else
    redis.call('PEXPIRE', 'arq:in-progress:' .. id, keep_in_progress_ms)
  end
  if task.run ~= '' then
    complete_cells(task, first_argument + 4, last_argument)
  end
  return '["released"]'
end

-- The task of a run that cannot succeed: its record is dropped with a reason.
local function drop(lease_id, reason)
  local lease, unknown = own_lease(lease_id)
  if not lease then
    return unknown
  end
  local task = end_task(lease_id, lease)
  redis.call('DEL', 'arq:in-progress:' .. lease.task_id)
  if task.run ~= '' then
    drop_cells(task, reason)
  end
  return '["released"]'
end

-- End the lease and put the task back in one step, with the try given back where it was not one.
local function retry(lease_id, delay_us, give_back_try)
  local lease, unknown = own_lease(lease_id)
  if not lease then
    return unknown
  end
  local id, available_us = lease.task_id, now_us + tonumber(delay_us)
  local task = end_lease(lease_id, lease, false)
  redis.call('DEL', 'arq:in-progress:' .. id)
  if give_back_try == '1' then
    redis.call('DECR', 'arq:retry:' .. id)
    redis.call('PEXPIRE', 'arq:retry:' .. id, 88400000)
  end
  redis.call('ZADD', K.queue, int(math.floor(available_us / 1000)), id)
  emit('retry_deferred', 'task_id', id, 'available_at_us', int(available_us))
  if not is_wanted(task) then
    forget_task(id)
  elseif available_us > now_us then
    delay(id, task, available_us)
  else
    enqueue(id, task)
  end
  return '["released"]'
end

-- Of a run it gives up the record with it: nobody else would ever make that cell.
local function discard(id)
  local task = read_task(id)
  if not discard_waiting(id) then
    return '["unknown"]'
  end
  if task.run ~= '' then
    drop_cells(task, 'discarded')
  end
  return '["discarded"]'
end

-- A clean shutdown: the tasks of this member go back at once, 200 a call.
local function leave()
  return end_member(member_id, 'left') and '["left"]' or '["leaving"]'
end

local OPERATIONS = {
  submit = submit,
  admit = admit,
  finish = finish,
  drop = drop,
  retry = retry,
  discard = discard,
  claim = claim,
  leave = leave,
  run_submit = run_submit,
  run_collect = run_collect,
  run_written = run_written,
  run_cancel = run_cancel,
}
