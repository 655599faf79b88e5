-- How many row groups of a run may be open (design 05): its horizon. `fixed` is max_open; `additive` begins with
-- one, and grows by one each time a member with a free slot finds nothing ready in the pool.
-- @include lib/runs/drivers
-- @include lib/tasks/cooling

function RUNS.target_of(run, plan)
  if plan.admission ~= 'additive' then
    return plan.max_open
  end
  return math.min(plan.max_open, tonumber(redis.call('HGET', K.progress, run .. '\0target')) or 1)
end

-- The reason why the next row group is not admitted, or nil. Unwritten row groups count as open ones do, which bounds
-- memory while no driver writes; row groups that wait for a cooldown hold up no other.
function RUNS.obstacle(run, plan)
  if redis.call('HEXISTS', K.progress, run .. '\0stopped') == 1 then
    return 'stopped'
  end
  local open, unwritten = RUNS.counted(run, 'open'), RUNS.counted(run, 'unwritten')
  local held = open + unwritten
  if held > 0 and (held + 1) * plan.buffer_size > (plan.max_rows or RUNS.usual_rows) then
    return 'max_admitted_rows'
  end
  local target, busy = RUNS.target_of(run, plan), open
  if (busy >= target or busy + unwritten > target) and open > 0 and held < RUNS.most_open and COOLING.next_us()
    and RUNS.has_other_work(plan) then
    busy = open - RUNS.count_waiting(run, plan, open)
  end
  if busy >= target then
    return 'max_concurrent_row_groups'
  end
  return busy + unwritten > target and 'unwritten' or nil
end

-- Whether no row group may be admitted now; each change of the reason is an event.
function RUNS.is_held_back(run, plan)
  if RUNS.counted(run, 'next') >= plan.row_groups then
    return true
  end
  local reason = RUNS.obstacle(run, plan) or (not DRIVERS.is_present(run) and 'unattended' or nil)
  if reason ~= (redis.call('HGET', K.progress, run .. '\0held_back') or nil) then
    if reason then
      EXPIRY.with_shard('progress')
      redis.call('HSET', K.progress, run .. '\0held_back', reason)
      emit('row_group_admission_blocked', 'run_id', run, 'reason', reason)
    else
      redis.call('HDEL', K.progress, run .. '\0held_back')
    end
  end
  return reason ~= nil
end

-- Let the horizon of one run grow by one row group, as the calling member has a free slot and finds nothing ready.
-- Returns whether a task is queued now. At most 16 runs with drivers are tried.
function RUNS.extend_horizon()
  local may_make = meta.queued == 0 and CLASSES.serves(member_id, COOLING.cell_function)
  local attended = may_make and redis.call('ZRANGE', K.claims, '[!', '("', 'BYLEX', 'LIMIT', 0, 16) or {}
  for i = 1, #attended do
    local run = split(attended[i], '\0')[2]
    local plan = redis.call('HEXISTS', K.progress, run .. '\0target') == 1 and RUNS.plan_of(run)
    local target = plan and RUNS.target_of(run, plan)
    if plan and target < plan.max_open and RUNS.obstacle(run, plan) == 'max_concurrent_row_groups'
      and RUNS.counted(run, 'next') < plan.row_groups and DRIVERS.is_present(run) then
      redis.call('HSET', K.progress, run .. '\0target', int(target + 1))
      emit('row_group_admission_target_changed', 'run_id', run, 'from', int(target), 'to', int(target + 1))
      RUNS.open_row_groups(run, plan)
      return meta.queued > 0
    end
  end
  return false
end
