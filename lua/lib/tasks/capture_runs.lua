-- What is kept of runs, compared with the runs that there are: nothing may outlive its run.
-- @include lib/tasks/tasks
-- @include lib/runs/state
-- @include lib/shard/audit
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

-- Who attends a run is its driver, and only then do its claims count.
function AUDIT.expect_attendance(run, plan, driver)
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

-- Each open row group counts the tasks that there are of its columns.
function AUDIT.expect_row_group_tasks(runs, tasks, found)
  local expected = {}
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
    if #split(name, '\0') == 2 then
      expected[name] = tonumber(missing) -- the records that are missing in a row group
    end
  end
  AUDIT.expect_counts('row_groups', expected, found)
end

-- `attended`: run -> the member that attends it. `tasks`: as they are stored.
function AUDIT.audit_runs(attended, tasks)
  local runs = AUDIT.read_runs()
  for name, plan in pairs(runs) do
    AUDIT.expect_attendance(name, plan, attended[name])
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
  if redis.call('HLEN', K.cells) <= 100000 then
    AUDIT.expect_run('cells', runs, redis.call('HKEYS', K.cells))
  end
end
