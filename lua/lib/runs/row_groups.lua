-- Which row groups of a run are open, and which of those wait for a cooldown (design 05). A row group waits where
-- each of its tasks asks for a resource that cools; `row_groups` counts the tasks of each of its columns.
-- @include lib/runs/drivers
-- @include lib/runs/horizon

-- Count one task more, or less, of a column of an open row group.
function RUNS.count_task(task, by)
  local plan = task.run ~= '' and RUNS.plan_of(task.run)
  if not plan then
    return
  end
  local name = RUNS.tasks_field(task.run, plan, RUNS.row_group_of(plan, task), task.column)
  if by > 0 then
    EXPIRY.with_shard('row_groups')
    redis.call('HINCRBY', K.row_groups, name, by)
    return
  end
  local row_group = RUNS.row_group_of(plan, task)
  local known = redis.call('HMGET', K.row_groups, name, RUNS.salvage_field(task.run, row_group))
  if known[2] or RUNS.is_stopped(task.run, plan) then
    RUNS.touch_row_group(task.run, row_group)
  end
  if known[1] then
    if redis.call('HINCRBY', K.row_groups, name, by) <= 0 then
      redis.call('HDEL', K.row_groups, name)
      RUNS.touch(task.run)
    end
  end
end

-- The number of tasks of a row group that wait or run.
function RUNS.tasks_in(run, plan, row_group)
  local names, total = {}, 0
  for index = 1, #plan.columns do
    names[index] = RUNS.tasks_field(run, plan, row_group, index)
  end
  local tasks = redis.call('HMGET', K.row_groups, unpack(names))
  for index = 1, #plan.columns do
    total = total + (tonumber(tasks[index]) or 0)
  end
  return total
end

-- Call a function with each open row group; the open ones are among the last that were admitted.
function RUNS.each_open(run, look_at)
  local left, row_group = RUNS.counted(run, 'open'), RUNS.counted(run, 'next')
  while left > 0 and row_group > 0 do
    row_group = row_group - 1
    if redis.call('HEXISTS', K.row_groups, run .. '\0' .. int(row_group)) == 1 then
      left = left - 1
      look_at(row_group)
    end
  end
end

-- Whether each task of a row group waits for a cooldown; one without tasks does not.
function RUNS.is_waiting(run, plan, row_group)
  local names, holds = {}, false
  for index = 1, #plan.columns do
    names[index] = RUNS.tasks_field(run, plan, row_group, index)
  end
  local tasks = redis.call('HMGET', K.row_groups, unpack(names))
  for index = 1, #plan.columns do
    if tasks[index] then
      local column = plan.columns[index]
      if not COOLING.holds(column.signature .. ';' .. (column.fn or '')) then
        return false
      end
      holds = true
    end
  end
  return holds
end

-- The number of open row groups that wait for a cooldown, of the last admitted ones.
function RUNS.count_waiting(run, plan, open)
  local waiting, next_group = 0, RUNS.counted(run, 'next')
  local names = {}
  for row_group = next_group - 1, math.max(0, next_group - RUNS.most_looked_at), -1 do
    names[#names + 1] = run .. '\0' .. int(row_group)
  end
  local missing = redis.call('HMGET', K.row_groups, unpack(names))
  for i = 1, #missing do
    if missing[i] and open > 0 then
      open = open - 1
      waiting = waiting + (RUNS.is_waiting(run, plan, next_group - i) and 1 or 0)
    end
  end
  return waiting
end

-- Whether a new row group has cells that need nothing of what cools, and none that waits for it.
function RUNS.has_other_work(plan)
  local is_made, is_more, has_work = {}, true, false
  while is_more do
    is_more = false
    for index = 1, #plan.columns do
      local column = plan.columns[index]
      local is_reached = not is_made[index] and not COOLING.holds(column.signature .. ';' .. (column.fn or ''))
      for i = 1, #column.inputs do
        is_reached = is_reached and is_made[column.inputs[i]]
      end
      if is_reached then
        is_made[index], is_more, has_work = true, true, has_work or #column.inputs > 0
        for i = 1, #column.outputs do
          is_made[column.outputs[i]] = true
        end
      end
    end
  end
  return has_work
end

-- Note that a run has changed, so that the end of the call checks for room for a row group.
function RUNS.touch(run)
  if meta.cooling ~= '' then
    meta.touched = meta.touched or {}
    meta.touched[run] = true
  end
end

function RUNS.look_for_room()
  for run in pairs(meta.touched or {}) do
    local plan = RUNS.plan_of(run)
    if plan then
      RUNS.open_row_groups(run, plan)
    end
  end
end

-- Forget an open row group; false if it is not open.
function RUNS.forget_row_group(run, plan, row_group)
  local was_open = redis.call('HDEL', K.row_groups, run .. '\0' .. int(row_group)) == 1
  redis.call('HDEL', K.row_groups, RUNS.salvage_field(run, row_group))
  for index = 1, #plan.columns do
    local name = RUNS.tasks_field(run, plan, row_group, index)
    redis.call('HDEL', K.row_groups, name, name .. '\0waits')
  end
  return was_open
end

-- Submit the tasks of a new row group that need no inputs: its roots. A batch behind cells waits for the
-- inputs of every record.
function RUNS.begin_row_group(run, plan, row_group)
  local first, last = RUNS.records_of(plan, row_group)
  redis.call('HSET', K.row_groups, run .. '\0' .. row_group, int(last - first + 1))
  for index = 1, #plan.columns do
    local column = plan.columns[index]
    if #column.inputs > 0 and column.scope == 'g' then
      redis.call('HSET', K.row_groups, RUNS.tasks_field(run, plan, row_group, index) .. '\0waits',
        int(last - first + 1))
    elseif #column.inputs == 0 and column.scope == 'g' then
      RUNS.submit_cell(run, plan, index, int(row_group))
    elseif #column.inputs == 0 then
      for record = first, last do
        RUNS.submit_cell(run, plan, index, int(record))
      end
    end
  end
end

-- Admit row groups while nothing holds them back.
function RUNS.open_row_groups(run, plan)
  while not RUNS.is_held_back(run, plan) do
    local row_group = RUNS.counted(run, 'next')
    RUNS.count(run, 'next', 1)
    RUNS.count(run, 'open', 1)
    EXPIRY.with_shard('row_groups')
    EXPIRY.with_shard('progress')
    emit('row_group_admitted', 'run_id', run, 'row_group', int(row_group))
    RUNS.begin_row_group(run, plan, row_group)
  end
end
