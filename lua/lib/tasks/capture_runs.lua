-- The audit of runs: no entry may outlive its run.
-- @include lib/tasks/tasks
-- @include lib/runs/state
-- @include lib/shard/audit
AUDIT.most_cells = 100000

function AUDIT.read_runs()
  local runs = {}
  for name, text in pairs(read_hash(K.runs)) do
    if not string.find(name, '\0', 1, true) then
      runs[name] = cjson.decode(text)
    end
  end
  return runs
end

function AUDIT.expect_run(kind, runs, names)
  for i = 1, #names do
    if not runs[split(names[i], '\0')[1]] then
      AUDIT.differs(kind, names[i], 'a run', 'none')
    end
  end
end

-- Compare a run's driver with its claims, which count only with a driver.
function AUDIT.expect_driver(run, plan, driver)
  AUDIT.expect('progress', 'driver of ' .. run, driver or '', redis.call('HGET', K.progress, run .. '\0driver') or '')
  local claims, kind = redis.call('ZRANGE', K.claims, '[@run:' .. run .. '\0', '(@run:' .. run .. '\1', 'BYLEX'),
    driver and '=' or '~'
  local claimed = {}
  for i = 1, #claims do
    local part = split(claims[i], '\0')
    local place = part[2] .. '\0' .. string.format('%016.0f', part[3]) .. '\0run:' .. run
    claimed[part[2]] = redis.call('ZSCORE', K.claims, kind .. place) and tonumber(part[3])
  end
  for resource, limit in pairs(plan.limits or {}) do
    AUDIT.expect('claims', resource .. ' of ' .. run, limit, claimed[resource])
  end
end

-- The cells of a record that are there: column -> true, or nil for a record that was dropped.
function AUDIT.cells_of(run, plan, record)
  local names = { RUNS.cell(run, record, '!') }
  for index = 1, #plan.columns do
    names[index + 1] = RUNS.cell(run, record, plan.columns[index].outputs[1])
  end
  local values, there = redis.call('HMGET', K.cells, unpack(names)), {}
  for index = 1, #plan.columns do
    for i = 1, values[index + 1] and #plan.columns[index].outputs or 0 do
      there[plan.columns[index].outputs[i]] = true
    end
  end
  return not values[1] and there or nil
end

function AUDIT.has_all(there, inputs)
  for i = 1, #inputs do
    if not there[inputs[i]] then
      return false
    end
  end
  return true
end

-- The ready frontier of an open row group, worked out from its cells: each cell that is not made and has its inputs
-- has a task, and a batch as soon as no open record misses an input.
function AUDIT.expect_frontier(run, plan, row_group, tasks, expected)
  local first, last = RUNS.records_of(plan, row_group)
  local missing, wanted = {}, {}
  for record = first, last do
    local there = AUDIT.cells_of(run, plan, int(record))
    for index = 1, there and #plan.columns or 0 do
      local column = plan.columns[index]
      local is_ready, is_made = AUDIT.has_all(there, column.inputs), there[column.outputs[1]]
      missing[index] = (missing[index] or 0) + (is_ready and 0 or 1)
      wanted[index] = wanted[index] or not is_made
      if column.scope == 'r' and is_ready and not is_made then
        local id = RUNS.task_id(run, column, record)
        AUDIT.expect('tasks', id, true, tasks[id] ~= nil)
      end
    end
  end
  for index = 1, #plan.columns do
    local column = plan.columns[index]
    if column.scope == 'g' and missing[index] then
      local id = RUNS.task_id(run, column, row_group)
      AUDIT.expect('tasks', id, wanted[index] and missing[index] == 0, tasks[id] ~= nil)
      if #column.inputs > 0 then
        expected[RUNS.tasks_field(run, plan, row_group, index) .. '\0waits'] = missing[index]
      end
    end
  end
end

-- Each open row group counts the tasks that there are of its columns.
function AUDIT.expect_row_group_tasks(runs, tasks, found)
  local expected, is_small = {}, redis.call('HLEN', K.cells) <= AUDIT.most_cells
  for _, text in pairs(tasks) do
    local task = TASKS.parse(text)
    local plan = task.number and runs[task.run]
    if plan and plan.columns[tonumber(task.column)] then
      local row_group = RUNS.row_group_of(plan, task)
      local name = RUNS.tasks_field(task.run, plan, row_group, task.column)
      if found[task.run .. '\0' .. int(row_group)] then
        expected[name] = (expected[name] or 0) + 1
      end
    end
  end
  for name, missing in pairs(found) do
    if split(name, '\0')[3] == '!' then
      AUDIT.expect_run('row_groups', runs, { name })
      found[name] = nil
    elseif #split(name, '\0') == 2 then
      expected[name] = tonumber(missing) -- the records that are missing in a row group
      local part = split(name, '\0')
      if is_small and runs[part[1]] and redis.call('HEXISTS', K.progress, part[1] .. '\0stopped') == 0 then
        AUDIT.expect_frontier(part[1], runs[part[1]], tonumber(part[2]), tasks, expected)
      end
    elseif string.sub(name, -6) == '\0waits' and not expected[name] then
      expected[name] = tonumber(missing)
    end
  end
  AUDIT.expect_counts('row_groups', expected, found)
end

-- `attended`: run -> the member that drives it. `tasks`: as they are stored.
function AUDIT.audit_runs(attended, tasks)
  local runs = AUDIT.read_runs()
  for name, plan in pairs(runs) do
    AUDIT.expect_driver(name, plan, attended[name])
  end
  for name in pairs(attended) do
    AUDIT.expect_run('claims', runs, { name })
  end
  for name in pairs(runs) do
    AUDIT.expect('progress', 'unwritten of ' .. name, redis.call('ZLEXCOUNT', K.checkpoints,
      '[' .. name .. '\0', '(' .. name .. '\1'), RUNS.counted(name, 'unwritten'))
  end
  local open, missing = {}, read_hash(K.row_groups)
  AUDIT.expect_row_group_tasks(runs, tasks, missing)
  for name in pairs(missing) do
    local part = split(name, '\0')
    if #part == 2 then
      open[part[1]] = (open[part[1]] or 0) + 1
    end
  end
  for name in pairs(runs) do
    AUDIT.expect('progress', 'open of ' .. name, open[name] or 0, RUNS.counted(name, 'open'))
  end
  AUDIT.expect_run('runs', runs, redis.call('HKEYS', K.runs))
  AUDIT.expect_run('progress', runs, redis.call('HKEYS', K.progress))
  AUDIT.expect_run('row_groups', runs, redis.call('HKEYS', K.row_groups))
  AUDIT.expect_run('checkpoints', runs, redis.call('ZRANGE', K.checkpoints, 0, -1))
  if redis.call('HLEN', K.cells) <= AUDIT.most_cells then
    AUDIT.expect_run('cells', runs, redis.call('HKEYS', K.cells))
  end
end
