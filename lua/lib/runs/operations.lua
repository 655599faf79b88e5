-- The operations of a run's driver: submit, collect finished row groups, report written ones, cancel.
-- @include lib/runs/tracker
-- @include lib/runs/frontier

-- Begin a run, once, with the limits that it claims; the caller is its driver. The plan was checked by who made
-- it; its resources are checked here, before anything is queued.
function OPERATIONS.run_submit(run, text, workflow)
  local known = RUNS.plan_of(run)
  if known then
    DRIVERS.begin(run)
    RUNS.go_on(run, known)
    RUNS.open_row_groups(run, known)
    return '["known"]'
  elseif meta.state == 'draining' then
    return CLAIMS.refused('shutdown', '')
  end
  local plan = cjson.decode(text)
  for resource, limit in pairs(plan.limits or {}) do
    CLAIMS.set(resource, DRIVERS.holder(run), int(limit))
  end
  for i = 1, #plan.columns do
    local refusal = CLAIMS.never_fits(plan.columns[i].signature)
    if refusal then
      CLAIMS.drop(DRIVERS.holder(run))
      return refusal
    end
  end
  EXPIRY.with_shard('runs')
  redis.call('HSET', K.runs, run, text, run .. '\0workflow', workflow)
  plans[run] = plan
  DRIVERS.begin(run)
  if plan.admission == 'additive' then
    redis.call('HSET', K.progress, run .. '\0target', 1)
  end
  RUNS.open_row_groups(run, plan)
  return '["accepted"]'
end

-- The resources of a run that cool: each with the end of its cooldown, and how many there were in a row.
function RUNS.cooling_of(plan)
  local told, list = {}, {}
  for i = 1, #plan.columns do
    for resource in pairs(COOLING.next_us() and LEDGER.amounts_of(plan.columns[i].signature).amounts or {}) do
      if COOLING.is_cooling(resource) and not told[resource] then
        told[resource] = true
        local one = COOLING.all()[resource]
        list[#list + 1] = '["' .. resource .. '",' .. int(one.until_us) .. ',' .. int(one.times) .. ']'
      end
    end
  end
  return list
end

-- A run that stopped itself goes on: records of its open row groups that the failing column dropped are open again,
-- and what was discarded is submitted.
function RUNS.go_on(run, plan)
  if not RUNS.is_stopped(run, plan) then
    return
  end
  local column = split(redis.call('HGET', K.progress, run .. '\0stopped'), '\0')[1]
  plan.is_stopped = false
  local names = { 'stopped', 'retries', 'troubles' }
  for index = 1, #plan.columns do
    names[#names + 1] = 'window\0' .. int(index)
  end
  for i = 1, #names do
    redis.call('HDEL', K.progress, run .. '\0' .. names[i])
  end
  emit('run_resumed', 'run_id', run, 'column', column)
  RUNS.each_open(run, function(row_group)
    RUNS.revive_records(run, plan, row_group, column)
    RUNS.submit_frontier(run, plan, row_group)
  end)
end

-- Progress of a run, or why no worker makes it, the row groups whose cells wait to be written out, and what
-- the run waits for. The caller becomes the run's driver, and gets notices of the next ones.
function OPERATIONS.run_collect(run)
  local plan = RUNS.plan_of(run)
  if not plan then
    return '["unknown"]'
  end
  DRIVERS.begin(run)
  local refusal = redis.call('HGET', K.progress, run .. '\0refused')
  if refusal then
    return '["refused",' .. cjson.encode(refusal) .. ']'
  end
  RUNS.open_row_groups(run, plan)
  local ready = redis.call('ZRANGE', K.checkpoints, '[' .. run .. '\0', '(' .. run .. '\1', 'BYLEX',
    'LIMIT', 0, 16)
  for i = 1, #ready do
    ready[i] = int(tonumber(split(ready[i], '\0')[2]))
  end
  return '["progress",' .. table.concat({ RUNS.counted(run, 'done'), RUNS.counted(run, 'dropped'),
    RUNS.counted(run, 'open'), RUNS.counted(run, 'written') }, ',') .. ',[' .. table.concat(ready, ',') .. '],['
    .. table.concat(RUNS.cooling_of(plan), ',') .. '],' .. RUNS.troubles_of(run) .. ',' .. RUNS.stop_of(run, plan) .. ']'
end

function RUNS.delete_cells(run, plan, record)
  local names = { RUNS.cell(run, record, '#'), RUNS.cell(run, record, '!') }
  for index = 1, #plan.columns do
    for i = 1, #plan.columns[index].outputs do
      names[#names + 1] = RUNS.cell(run, record, plan.columns[index].outputs[i])
    end
  end
  redis.call('HDEL', K.cells, unpack(names))
end

function RUNS.finish(run, plan)
  redis.call('HDEL', K.runs, run, run .. '\0workflow')
  plans[run] = false
  DRIVERS.finish(run)
  local names = { 'next', 'open', 'unwritten', 'done', 'dropped', 'written', 'driver', 'accepted',
    'refusals', 'refused', 'stopped', 'target', 'held_back', 'retries', 'troubles' }
  for index = 1, #plan.columns do
    names[#names + 1] = 'window\0' .. int(index)
  end
  for i = 1, #names do
    redis.call('HDEL', K.progress, run .. '\0' .. names[i])
  end
  local used = USE.fields(plan)
  for i = 1, #used do
    redis.call('HDEL', K.progress, run .. '\0' .. used[i])
  end
end

-- A row group's records are on disk: its cells go, and the next row group may come. The last one
-- ends the run.
function OPERATIONS.run_written(run, row_group)
  local plan = RUNS.plan_of(run)
  local member = run .. '\0' .. string.format('%016.0f', tonumber(row_group))
  if not plan or redis.call('ZREM', K.checkpoints, member) == 0 then
    return '["unknown"]'
  end
  local first, last = RUNS.records_of(plan, tonumber(row_group))
  for record = first, last do
    RUNS.delete_cells(run, plan, int(record))
  end
  RUNS.count(run, 'unwritten', -1)
  if RUNS.count(run, 'written', 1) == plan.row_groups then
    RUNS.finish(run, plan)
    return '["ended"]'
  end
  RUNS.open_row_groups(run, plan)
  return '["written"]'
end

function RUNS.cancel_row_group(run, plan, row_group)
  RUNS.discard_waiting(run, plan, row_group)
  local first, last = RUNS.records_of(plan, row_group)
  for record = first, last do
    RUNS.delete_cells(run, plan, int(record))
  end
end

-- Cancel a run: waiting tasks never start, results of running ones are ignored, finished row groups stay until
-- they are deleted with the rest.
function OPERATIONS.run_cancel(run)
  local plan = RUNS.plan_of(run)
  if not plan then
    return '["unknown"]'
  end
  -- The open ones and those not written are among the last that were admitted.
  local left, row_group = RUNS.counted(run, 'open') + RUNS.counted(run, 'unwritten'), RUNS.counted(run, 'next')
  while left > 0 and row_group > 0 do
    row_group = row_group - 1
    local open = RUNS.forget_row_group(run, plan, row_group) and 1 or 0
    local unwritten = redis.call('ZREM', K.checkpoints,
      run .. '\0' .. string.format('%016.0f', row_group))
    if open + unwritten > 0 then
      left = left - 1
      RUNS.cancel_row_group(run, plan, row_group)
    end
  end
  RUNS.finish(run, plan)
  emit('cancelled', 'run_id', run)
  return '["cancelled"]'
end
