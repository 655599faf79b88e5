-- How a task of a pool ends: its lease is finished, dropped or released for another try, or it is discarded
-- while it waits.
-- @include lib/tasks/settle
-- @include lib/tasks/check
-- @include lib/runs/operations
-- @include lib/runs/refusals

function TASKS.write_result(id, result, ttl_ms)
  if result ~= '' then
    TASKS.set('result', id, result, ttl_ms)
  end
end

-- The caller's lease; else nil and the answer that tells why. An unknown lease may be lost with a key of the pool, so
-- damage is looked for before it is answered.
function TASKS.own(lease_id)
  local lease, unknown = LEASES.own(lease_id, member_id)
  if unknown == '["unknown_lease"]' then
    DAMAGE.check()
  end
  return lease, unknown
end

-- Values of cells follow the four arguments; they are read from ARGV, as they may be thousands.
function OPERATIONS.finish(lease_id, result, result_ttl_ms, keep_in_progress_ms)
  local lease, unknown = TASKS.own(lease_id)
  if not lease then
    return unknown
  end
  local id = lease.task_id
  local task = (lease.is_cell or keep_in_progress_ms ~= '') and TASKS.read(id)
  LEASES.release(lease_id, lease, false)
  TASKS.forget(id, keep_in_progress_ms == '')
  TASKS.write_result(id, result, result_ttl_ms)
  if keep_in_progress_ms ~= '' then -- a cron job's mark: this instant was served, a later one was not
    redis.call('SET', TASKS.arq_key('in-progress', id), K.queue .. ' ' .. task.score, 'PX', keep_in_progress_ms)
  end
  STATE.emit_task('task_lease_released', 'task_id', id, 'lease_id', lease_id, 'outcome', 'completed')
  if lease.is_cell and task then
    COOLING.finish(task.signature)
    RUNS.complete_cells(task, first_argument + 4, last_argument)
  end
  return '["released"]'
end

-- End the lease of a run's task that cannot succeed; its record is dropped with a reason.
function OPERATIONS.drop(lease_id, reason, model, status)
  local lease, unknown = TASKS.own(lease_id)
  if not lease then
    return unknown
  end
  local task = lease.is_cell and TASKS.read(lease.task_id)
  LEASES.release(lease_id, lease, false)
  TASKS.forget(lease.task_id, true)
  STATE.emit_task('task_lease_released', 'task_id', lease.task_id, 'lease_id', lease_id, 'outcome', 'dropped')
  if task then
    RUNS.drop_cells(task, RUNS.failure_of(task, reason, model, status))
  end
  return '["released"]'
end

-- End the lease and put the task back in one step. It counts a try, nothing, or a loss: something in the
-- process cut its code off, and nobody knows which task is to blame. A task of a run that names a resource
-- which cools waits in its old place for that, with all that ask for it; one that failed for a reason waits for
-- the next salvage round of its row group.
function OPERATIONS.retry(lease_id, delay_us, counts, cooling, reason, model, status)
  local lease, unknown = TASKS.own(lease_id)
  if not lease then
    return unknown
  end
  local id, available_us = lease.task_id, now_us + tonumber(delay_us)
  LEASES.release(lease_id, lease, false)
  redis.call('DEL', TASKS.arq_key('in-progress', id))
  STATE.emit_task('retry_deferred', 'task_id', id, 'lease_id', lease_id, 'available_at_us', int(available_us))
  local task, is_try = TASKS.read(id), counts ~= '1' and counts ~= '2'
  if is_try then
    LOST.forget(id, task) -- it ended once, and its member lives
  elseif counts == '2' then
    LOST.count(id, task, member_id)
  end
  if COOLING.holds_for(task, cooling) then
    COOLING.begin(cooling, available_us)
    RUNS.touch(task.run)
    available_us = now_us
  end
  if is_try and task.run ~= '' and (reason or '') ~= '' then
    RUNS.try_again(id, task, available_us, RUNS.failure_of(task, reason, model, status))
  else
    LOST.put_back(id, task, available_us, task.tries + (is_try and 1 or 0))
  end
  return '["released"]'
end

-- Discard a waiting task; the record of a run's task is dropped, as no other task makes its cell. A result may be
-- left, such as that of an aborted job.
function OPERATIONS.discard(id, result, result_ttl_ms)
  local task = TASKS.read(id)
  if not TASKS.discard(id) then
    if not task and redis.call('EXISTS', TASKS.arq_key('job', id), TASKS.arq_key('in-progress', id)) == 0 then
      TASKS.take_abort(id) -- it is over, here and in every other pool: delete its abort request
    end
    return '["unknown"]'
  end
  TASKS.write_result(id, result, result_ttl_ms)
  STATE.emit_task('cancelled', 'task_id', id)
  if task.run ~= '' then
    RUNS.drop_cells(task, RUNS.failure_of(task, 'discarded by an operator'))
  end
  return '["discarded"]'
end

-- End a waiting task with a result, if `is_right`.
function TASKS.end_waiting(is_right, id, result, result_ttl_ms, emit_dropped, reason)
  if not is_right or not TASKS.discard(id) then
    return '["unknown"]'
  end
  TASKS.write_result(id, result, result_ttl_ms)
  emit_dropped('non_retryable_dropped', 'task_id', id, 'reason', reason)
  return '["discarded"]'
end

-- End a lease because an operator asks for it: the task goes back to its group, and the holder gets a notice.
function OPERATIONS.evict(lease_id)
  if meta.recovering_us > 0 then
    return '["recovering"]' -- its holder may still be about to state it
  end
  local text = LEASES.text(lease_id)
  if not text then
    DAMAGE.check()
    return LEASES.ended(lease_id) and '["ended"]' or '["unknown_lease"]'
  end
  local lease = LEASES.parse(text)
  LEASES.lose(lease_id, lease, 'evicted')
  SHARD.notify(lease.member, '["lost","' .. lease_id .. '"]')
  return '["evicted"]'
end

-- End a task whose payload has expired, or was lost, with a result. A task submitted anew under the id has a payload
-- and goes on.
function OPERATIONS.expire(id, result, result_ttl_ms)
  local task = TASKS.read(id)
  local has_expired = task and task.run == '' and redis.call('EXISTS', TASKS.arq_key('job', id)) == 0
  if task and LOST.has_no_payload(task) then
    return TASKS.end_waiting(has_expired, id, result, result_ttl_ms, emit, 'payload_lost')
  end
  return TASKS.end_waiting(has_expired, id, result, result_ttl_ms, STATE.emit_task, 'expired')
end

-- End a task that was lost too often, with a result that tells it.
function OPERATIONS.fail_lost(id, result, result_ttl_ms)
  local task = TASKS.read(id)
  local was_lost = task and task.losses >= LOST.max()
  return TASKS.end_waiting(was_lost, id, result, result_ttl_ms, emit, 'worker_lost')
end

FORMS.finish, FORMS.drop, FORMS.retry = { nil, nil, nil, 'there' }, { nil, nil, nil, 'there' }, { nil, nil, nil, 'there' }
