-- The runs' part of a rebuild (docs/adr/0023): which row groups are open or wait to be written, by the cells, and
-- which tasks they need. A run whose plan is gone is lost: its driver gets a notice, and no key of it stays.
-- @include lib/runs/check
-- @include lib/tasks/restore

-- Delete the keys of lost runs; `tasks` and `leases` by id of the task.
function RUNS.forget_lost(tasks, leases)
  local known = {}
  local function is_lost(run)
    known[run] = known[run] or not RUNS.plan_of(run)
    return known[run]
  end
  for name, kind in pairs({ progress = 'HDEL', cells = 'HDEL', row_groups = 'HDEL', checkpoints = 'ZREM' }) do
    local found, gone = kind == 'HDEL' and redis.call('HKEYS', K[name]) or redis.call('ZRANGE', K[name], 0, -1), {}
    for i = 1, #found do
      gone[#gone + 1] = is_lost(split(found[i], '\0')[1]) and found[i] or nil
    end
    write_many(kind, K[name], gone)
  end
  for id, task in pairs(tasks) do
    if task.run ~= '' and is_lost(task.run) then
      tasks[id], leases[id] = nil, nil
      redis.call('HDEL', K.tasks, id)
    end
  end
  for run, is_gone in pairs(known) do
    if is_gone then
      CLAIMS.drop(DRIVERS.holder(run))
      emit('run_lost', 'run_id', run)
    end
  end
end

-- Plans that can be read, by run.
function RUNS.read_plans()
  local found, names = {}, RUNS.names()
  for i = 1, #names do
    local is_readable, plan = pcall(RUNS.plan_of, names[i])
    if is_readable and type(plan) == 'table' and plan.columns and plan.records and plan.buffer_size then
      found[names[i]] = plan
    else
      redis.call('HDEL', K.runs, names[i], names[i] .. '\0workflow')
      plans[names[i]] = false
    end
  end
  return found
end

-- The row groups of all runs that are not written: run -> row group -> true. A task that runs may outlive its record,
-- so it tells of one only where none is written down. Besides, which tasks wait for a salvage round.
function RUNS.unwritten_groups(found, tasks, leases)
  local groups_of, salvage = {}, {}
  local function add(run, row_group)
    if found[run] and row_group then
      groups_of[run] = groups_of[run] or {}
      groups_of[run][row_group] = true
    end
  end
  local are_open = redis.call('HKEYS', K.row_groups)
  for i = 1, #are_open do
    local part = split(are_open[i], '\0')
    add(part[1], tonumber(part[2]))
    if part[3] == '!' then
      salvage[#salvage + 1], salvage[#salvage + 2] = are_open[i], redis.call('HGET', K.row_groups, are_open[i])
    end
  end
  local entries = redis.call('ZRANGE', K.checkpoints, 0, -1)
  for i = 1, #entries do
    local part = split(entries[i], '\0')
    add(part[1], tonumber(part[2]))
  end
  entries = redis.call('HKEYS', K.cells)
  for i = 1, #entries do
    local part = split(entries[i], '\0')
    add(part[1], found[part[1]] and math.floor(tonumber(part[2]) / found[part[1]].buffer_size))
  end
  for id, task in pairs(tasks) do
    if found[task.run] and (not leases[id] or #are_open == 0) then
      add(task.run, RUNS.row_group_of(found[task.run], task))
    end
  end
  return groups_of, salvage
end

-- Which columns of a record are made, and how many; nil where it was dropped.
function RUNS.made_of(run, plan, record)
  local names, has, count, at = { RUNS.cell(run, record, '!') }, {}, 0, 2
  for index = 1, #plan.columns do
    for i = 1, #plan.columns[index].outputs do
      names[#names + 1] = RUNS.cell(run, record, plan.columns[index].outputs[i])
    end
  end
  local values = redis.call('HMGET', K.cells, unpack(names))
  if values[1] then
    return nil, #plan.columns
  end
  for index = 1, #plan.columns do
    has[index] = true
    for i = 1, #plan.columns[index].outputs do
      has[index], at = has[index] and values[at] and true, at + 1
      has[plan.columns[index].outputs[i]] = has[index]
    end
    count = count + (has[index] and 1 or 0)
  end
  if count > 0 then
    redis.call('HSET', K.cells, RUNS.cell(run, record, '#'), count)
  else
    redis.call('HDEL', K.cells, RUNS.cell(run, record, '#'))
  end
  return has, count
end

-- Note the task of a cell that can be made and is not, in `needed`; a batch waits for the inputs of every record.
-- Returns whether the inputs are there.
function RUNS.note_needed(run, plan, index, record, has, needed)
  local column, is_ready = plan.columns[index], true
  for i = 1, #column.inputs do
    is_ready = is_ready and has[column.inputs[i]]
  end
  if is_ready and column.scope == 'r' and not has[index] then
    needed[RUNS.task_id(run, column, record)] = index
  end
  return is_ready
end

-- The needs of a row group's open records: how many of them are open, complete and dropped.
function RUNS.needed_tasks(run, plan, row_group, needed)
  local first, last = RUNS.records_of(plan, row_group)
  local missing, complete, dropped, waits, is_wanted = 0, 0, 0, {}, {}
  for record = first, last do
    local has, count = RUNS.made_of(run, plan, int(record))
    dropped = dropped + (has and 0 or 1)
    if count == #plan.columns then
      complete = complete + 1
    else
      missing = missing + 1
    end
    for index = 1, has and #plan.columns or 0 do
      local is_ready = RUNS.note_needed(run, plan, index, record, has, needed)
      waits[index] = (waits[index] or 0) + (is_ready and 0 or 1)
      is_wanted[index] = is_wanted[index] or not has[index]
    end
  end
  for index = 1, missing > 0 and #plan.columns or 0 do
    local column = plan.columns[index]
    if column.scope == 'g' and waits[index] == 0 and is_wanted[index] then
      needed[RUNS.task_id(run, column, row_group)] = index
    end
    if column.scope == 'g' and #column.inputs > 0 and waits[index] then
      redis.call('HSET', K.row_groups, RUNS.tasks_field(run, plan, row_group, index) .. '\0waits', int(waits[index]))
    end
  end
  return missing, complete, dropped
end

-- Work out the open row groups of a run again, and its counts.
function RUNS.repair_run(run, plan, row_groups, needed)
  local open, unwritten, complete, dropped, records, last = 0, 0, 0, 0, 0, -1
  for row_group in pairs(row_groups) do
    local missing, ended, given_up = RUNS.needed_tasks(run, plan, row_group, needed)
    complete, dropped, records, last = complete + ended, dropped + given_up, records + missing + ended,
      math.max(last, row_group)
    if missing > 0 then
      open = open + 1
      redis.call('HSET', K.row_groups, run .. '\0' .. int(row_group), int(missing))
    else
      unwritten = unwritten + 1
      redis.call('ZADD', K.checkpoints, 0, run .. '\0' .. string.format('%016.0f', row_group))
    end
  end
  local admitted = math.max(RUNS.counted(run, 'next'), last + 1)
  local ended = math.min(plan.records, admitted * plan.buffer_size) - records + complete
  dropped = math.max(dropped, math.min(ended, RUNS.counted(run, 'dropped')))
  local prefix = run .. '\0'
  redis.call('HSET', K.progress, prefix .. 'next', int(admitted), prefix .. 'open', int(open), prefix .. 'unwritten',
    int(unwritten), prefix .. 'written', int(admitted - open - unwritten), prefix .. 'dropped', int(dropped),
    prefix .. 'done', int(ended - dropped))
  if plan.admission == 'additive' then
    redis.call('HSETNX', K.progress, prefix .. 'target', int(math.max(1, open)))
  end
end

-- Let a run claim the limits of its plan, as far as it does not.
function RUNS.repair_claims(run, plan, is_attended)
  local holder = DRIVERS.holder(run)
  for resource, limit in pairs(plan.limits or {}) do
    if #CLAIMS.under('@' .. holder .. '\0' .. resource, 1) == 0 then
      CLAIMS.set(resource, holder, int(limit))
    end
  end
  CLAIMS.move(holder, is_attended and '~' or '=', is_attended and '=' or '~')
end

-- The driver of each run is noted with its claims and with its progress; the one is taken from the other.
function RUNS.repair_drivers(found)
  local entries = redis.call('ZRANGE', K.claims, '[!', '("', 'BYLEX')
  for i = 1, #entries do
    local part = split(string.sub(entries[i], 2), '\0')
    if found[part[2]] then
      redis.call('HSETNX', K.progress, part[2] .. '\0driver', part[1])
    end
    redis.call('ZREM', K.claims, entries[i])
  end
  for run, plan in pairs(found) do
    local driver = redis.call('HGET', K.progress, run .. '\0driver')
    if driver then
      redis.call('ZADD', K.claims, 0, DRIVERS.entry(driver, run))
    end
    RUNS.repair_claims(run, plan, driver)
  end
end

-- Rebuild the keys of runs; of `tasks` only those that the runs need are left.
function RUNS.repair(tasks, leases)
  local found = RUNS.read_plans()
  RUNS.forget_lost(tasks, leases)
  local needed, groups_of, salvage = {}, RUNS.unwritten_groups(found, tasks, leases)
  redis.call('UNLINK', K.row_groups, K.checkpoints)
  for i = 1, #salvage, 2 do
    if groups_of[split(salvage[i], '\0')[1]] then
      redis.call('HSET', K.row_groups, salvage[i], salvage[i + 1])
    end
  end
  for run, plan in pairs(found) do
    RUNS.repair_run(run, plan, groups_of[run] or {}, needed)
  end
  RUNS.repair_drivers(found)
  for id, task in pairs(tasks) do
    if task.run ~= '' and not needed[id] then
      tasks[id], leases[id] = nil, nil
      redis.call('HDEL', K.tasks, id)
    end
  end
  for id in pairs(needed) do
    local task = not tasks[id] and RESTORE.cell(id)
    if task and not RUNS.is_stopped(task.run, RUNS.plan_of(task.run)) then
      task.arrival, task.score, task.tries, task.losses = QUEUE.next_arrival(), int(math.floor(meta.last_us / 1000)), 0, 0
      tasks[id] = task
      TASKS.write(id, task)
    end
    if tasks[id] then
      RUNS.count_task(tasks[id], 1)
    end
  end
end
