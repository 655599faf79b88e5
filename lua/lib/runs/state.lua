-- A run's plan and counts, and which of its tasks are still wanted.
-- @include lib/int
-- @include lib/shard/shard
-- `skipped` is the value of a skipped cell: JSON's null, and a blank that no generator's null has.
local RUNS = { most_open = 256, most_looked_at = 1024, usual_rows = 10000, skipped = 'null ' }
local plans = {}

function RUNS.plan_of(run)
  local plan = plans[run]
  if plan == nil then
    local text = redis.call('HGET', K.runs, run)
    plan = text and cjson.decode(text) or false
    plans[run] = plan
  end
  return plan
end

function RUNS.count(run, name, by)
  return redis.call('HINCRBY', K.progress, run .. '\0' .. name, by)
end

function RUNS.counted(run, name)
  return tonumber(redis.call('HGET', K.progress, run .. '\0' .. name)) or 0
end

function RUNS.cell(run, record, name)
  return run .. '\0' .. record .. '\0' .. name
end

-- Whether a run has stopped itself, as too many of its cells failed.
function RUNS.is_stopped(run, plan)
  if plan.is_stopped == nil then
    plan.is_stopped = redis.call('HEXISTS', K.progress, run .. '\0stopped') == 1
  end
  return plan.is_stopped
end

function RUNS.is_made(run, column, record)
  return redis.call('HEXISTS', K.cells, RUNS.cell(run, record, column.outputs[1])) == 1
end

function RUNS.task_id(run, column, number)
  return run .. ':' .. column.name .. ':' .. column.scope .. int(tonumber(number))
end

function RUNS.records_of(plan, row_group)
  local first = row_group * plan.buffer_size
  return first, math.min(plan.records, first + plan.buffer_size) - 1
end

-- The row group of a task, and the field that counts the tasks of one of its columns.
function RUNS.row_group_of(plan, task)
  local number = tonumber(task.number)
  local column = plan.columns[tonumber(task.column)]
  return column.scope == 'g' and number or math.floor(number / plan.buffer_size)
end

function RUNS.tasks_field(run, plan, row_group, column)
  return run .. '\0' .. int(row_group) .. '\0' .. plan.columns[tonumber(column)].name
end

-- A record is open until it is whole, dropped or its run is over: only then do its tasks count.
function RUNS.is_open(run, plan, record)
  local row_group = math.floor(tonumber(record) / plan.buffer_size)
  return redis.call('HEXISTS', K.row_groups, run .. '\0' .. int(row_group)) == 1
    and redis.call('HEXISTS', K.cells, RUNS.cell(run, record, '!')) == 0
end

-- Whether a task's end can still matter: a task of no run always, one of a run while its record,
-- or any record of its row group, is open.
function RUNS.is_wanted(task)
  if task.run == '' then
    return true
  end
  local plan = RUNS.plan_of(task.run)
  if not plan or RUNS.is_stopped(task.run, plan) then
    return false
  end
  local column = plan.columns[tonumber(task.column)]
  if column.scope == 'g' then
    return redis.call('HEXISTS', K.row_groups, task.run .. '\0' .. task.number) == 1
  end
  return RUNS.is_open(task.run, plan, task.number)
end
