-- The ready frontier of a row group, worked out from its cells when a stopped run is resumed.
-- @include lib/runs/tracker

-- Discard the waiting tasks of a row group; running ones are left to end.
function RUNS.discard_waiting(run, plan, row_group)
  local first, last = RUNS.records_of(plan, row_group)
  for index = 1, #plan.columns do
    local column = plan.columns[index]
    local from, to = first, last
    if column.scope == 'g' then
      from, to = row_group, row_group
    end
    for number = from, to do
      TASKS.discard(RUNS.task_id(run, column, number))
    end
  end
end

-- Open the records again that a column dropped in an open row group.
function RUNS.revive_records(run, plan, row_group, column_name)
  local first, last = RUNS.records_of(plan, row_group)
  for record = first, last do
    local mark = RUNS.cell(run, int(record), '!')
    local text = redis.call('HGET', K.cells, mark)
    if text and split(text, '\0')[1] == column_name then
      redis.call('HDEL', K.cells, mark)
      redis.call('HINCRBY', K.row_groups, run .. '\0' .. int(row_group), 1)
      RUNS.count(run, 'dropped', -1)
      for index = 1, #plan.columns do
        if plan.columns[index].scope == 'g' and not RUNS.is_ready(run, plan.columns[index], int(record)) then
          redis.call('HINCRBY', K.row_groups, RUNS.tasks_field(run, plan, row_group, index) .. '\0waits', 1)
        end
      end
    end
  end
end

function RUNS.submit_missing(run, plan, index, number)
  if redis.call('HEXISTS', K.tasks, RUNS.task_id(run, plan.columns[index], number)) == 0 then
    RUNS.submit_cell(run, plan, index, int(number))
  end
end

-- Submit each task of a row group whose inputs are there, unless it is finished or submitted.
function RUNS.submit_frontier(run, plan, row_group)
  local first, last = RUNS.records_of(plan, row_group)
  local open = {}
  for record = first, last do
    if RUNS.is_open(run, plan, int(record)) then
      open[#open + 1] = int(record)
    end
  end
  for index = 1, #plan.columns do
    local column = plan.columns[index]
    if column.scope == 'r' then
      for i = 1, #open do
        if RUNS.is_ready(run, column, open[i]) and not RUNS.is_made(run, column, open[i]) then
          RUNS.submit_missing(run, plan, index, open[i])
        end
      end
    elseif #column.inputs == 0 or tonumber(redis.call('HGET', K.row_groups,
      RUNS.tasks_field(run, plan, row_group, index) .. '\0waits')) == 0 then
      local is_made = true
      for i = 1, #open do
        is_made = is_made and RUNS.is_made(run, column, open[i])
      end
      if not is_made then
        RUNS.submit_missing(run, plan, index, row_group)
      end
    end
  end
end
