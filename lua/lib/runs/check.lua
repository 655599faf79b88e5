-- Checks that the keys of runs agree (docs/adr/0023): it compares counts alone, as a run may have many cells.
-- @include lib/shard/damage
-- @include lib/tasks/tasks
-- @include lib/runs/state

-- The ids of all runs.
function RUNS.names()
  local stored, names = redis.call('HKEYS', K.runs), {}
  for i = 1, #stored do
    if not string.find(stored[i], '\0', 1, true) then
      names[#names + 1] = stored[i]
    end
  end
  return names
end

-- The open row groups of all runs: run -> how many; and whether any has tasks of a column that reads cells.
function RUNS.count_open()
  local open, reads_cells, found = {}, false, redis.call('HKEYS', K.row_groups)
  for i = 1, #found do
    local part = split(found[i], '\0')
    local plan = part[3] and RUNS.plan_of(part[1])
    if not part[3] then
      open[part[1]] = (open[part[1]] or 0) + 1
    end
    for index = 1, plan and not part[4] and #plan.columns or 0 do -- a batch that waits reads no cells yet
      local column = plan.columns[index]
      reads_cells = reads_cells or (column.name == part[3] and #column.inputs > 0)
    end
  end
  return open, reads_cells
end

-- The name of the first key of runs that contradicts the others, nil for none.
function RUNS.miscounted()
  local names, open, reads_cells = RUNS.names(), RUNS.count_open()
  if #names == 0 then
    local kept = redis.call('EXISTS', K.progress, K.row_groups, K.checkpoints) + redis.call('HLEN', K.cells)
    return kept > 0 and 'runs' or nil
  elseif redis.call('HLEN', K.progress) == 0 then
    return 'progress'
  end
  local unwritten = 0
  for i = 1, #names do
    unwritten = unwritten + RUNS.counted(names[i], 'unwritten')
    if RUNS.counted(names[i], 'open') ~= (open[names[i]] or 0) then
      return 'row_groups'
    end
  end
  if unwritten ~= redis.call('ZCARD', K.checkpoints) then
    return 'checkpoints'
  end
  return (unwritten > 0 or reads_cells) and redis.call('HLEN', K.cells) == 0 and 'cells' or nil
end
