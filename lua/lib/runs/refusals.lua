-- Refusals of a run by workers, as it uses a variable, file or host outside their allowlists.
-- One worker that accepts lets the run go on; with none, its driver gets the reasons.
-- @include lib/runs/tracker

-- Whether each live member that makes cells has refused the run.
function RUNS.is_refused_by_all(refusals)
  local members = redis.call('ZRANGE', K.members, 0, -1)
  for i = 1, #members do
    if not refusals[members[i]]
      and redis.call('ZSCORE', K.held, members[i] .. '\0function\0' .. COOLING.cell_function) then
      return false
    end
  end
  return true
end

-- Accept a run: the caller may make its cells.
function OPERATIONS.run_accept(run)
  if not RUNS.plan_of(run) then
    return '["unknown"]'
  elseif redis.call('HEXISTS', K.progress, run .. '\0refused') == 1 then
    return '["refused"]'
  end
  EXPIRY.with_shard('progress')
  redis.call('HSET', K.progress, run .. '\0accepted', 1)
  return '["accepted"]'
end

-- The refusals of a run by live members; those of ended members are deleted.
function RUNS.refusals_of(run)
  local text, living = redis.call('HGET', K.progress, run .. '\0refusals'), {}
  for member, reason in pairs(text and cjson.decode(text) or {}) do
    if redis.call('ZSCORE', K.members, member) then
      living[member] = reason
    end
  end
  return living
end

-- Refuse a run for a reason: the caller may not make its cells. An accepted run is never refused: it waits for
-- others, and the reason is kept for the driver to show.
function OPERATIONS.run_refuse(run, reason)
  if not RUNS.plan_of(run) then
    return '["unknown"]'
  end
  local refusals = RUNS.refusals_of(run)
  refusals[member_id] = reason
  EXPIRY.with_shard('progress')
  redis.call('HSET', K.progress, run .. '\0refusals', cjson.encode(refusals))
  if redis.call('HEXISTS', K.progress, run .. '\0accepted') == 1 then
    return '["accepted"]'
  end
  if not RUNS.is_refused_by_all(refusals) then
    return '["noted"]'
  end
  redis.call('HSET', K.progress, run .. '\0refused', reason)
  emit('run_refused', 'run_id', run, 'member_id', member_id)
  RUNS.notify_driver(run, '["row_group"]')
  return '["refused"]'
end
