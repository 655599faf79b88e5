-- What is kept of runs, compared with the runs that there are: nothing may outlive its run.
local function read_runs()
  local runs = {}
  for name, text in pairs(read_hash(K.runs)) do
    if not string.find(name, '\0', 1, true) then
      runs[name] = cjson.decode(text)
    end
  end
  return runs
end

local function expect_run(kind, runs, names)
  for i = 1, #names do
    if not runs[split(names[i], '\0')[1]] then
      differs(kind, names[i], 'a run', 'none')
    end
  end
end

local function audit_runs()
  local runs = read_runs()
  for name in pairs(runs) do
    expect('progress', 'unwritten of ' .. name, redis.call('ZLEXCOUNT', K.checkpoints,
      '[' .. name .. '\0', '(' .. name .. '\1'), counted(name, 'unwritten'))
  end
  local open, missing = {}, read_hash(K.row_groups)
  for name in pairs(missing) do
    open[split(name, '\0')[1]] = (open[split(name, '\0')[1]] or 0) + 1
  end
  for name in pairs(runs) do
    expect('progress', 'open of ' .. name, open[name] or 0, counted(name, 'open'))
  end
  expect_run('runs', runs, redis.call('HKEYS', K.runs))
  expect_run('progress', runs, redis.call('HKEYS', K.progress))
  expect_run('row_groups', runs, redis.call('HKEYS', K.row_groups))
  expect_run('checkpoints', runs, redis.call('ZRANGE', K.checkpoints, 0, -1))
  if redis.call('HLEN', K.cells) <= 100000 then
    expect_run('cells', runs, redis.call('HKEYS', K.cells))
  end
end
