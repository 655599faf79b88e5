-- The completion tracker (design 05, *Readiness*): which cells a run has, which tasks that makes ready, and when a
-- row group is through. Its state of a run: `runs` the plan, `progress` counts, `cells` values of
-- open row groups, `row_groups` records that are still missing in each.
-- @include lib/shard/operations
-- @include lib/tasks/leases
-- @include lib/runs/row_groups
-- @include lib/runs/use
-- @include lib/runs/salvage

function RUNS.submit_cell(run, plan, index, number)
  if RUNS.is_stopped(run, plan) then
    return -- it is submitted once the run is resumed
  end
  local column = plan.columns[index]
  local id = RUNS.task_id(run, column, number)
  RUNS.count_task({ run = run, column = int(index), number = number }, 1)
  if redis.call('HEXISTS', K.tasks, id) == 1 then
    return -- it still runs from before its run was cancelled and begun again: its end counts
  end
  LINES.set_terms(GROUPS.of(column.group), column.weight, column.admitted_limit)
  QUEUE.let_wait(id, { group = column.group, arrival = QUEUE.next_arrival(), signature = column.signature,
    tries = 0, run = run, column = int(index), number = number, fn = column.fn or '', losses = 0,
    weight = real(column.weight), limit = column.admitted_limit }, now_us)
end

function RUNS.notify_driver(run, text)
  local driver = redis.call('HGET', K.progress, run .. '\0driver')
  if driver then
    SHARD.notify(driver, text)
  end
end

-- Close a finished row group: discard its waiting batches and let the driver write it.
function RUNS.close_row_group(run, plan, row_group)
  RUNS.forget_row_group(run, plan, row_group)
  for index = 1, #plan.columns do
    if plan.columns[index].scope == 'g' and #plan.columns[index].inputs > 0 then
      TASKS.discard(RUNS.task_id(run, plan.columns[index], row_group))
    end
  end
  EXPIRY.with_shard('checkpoints')
  redis.call('ZADD', K.checkpoints, 0, run .. '\0' .. string.format('%016.0f', row_group))
  RUNS.count(run, 'open', -1)
  RUNS.count(run, 'unwritten', 1)
  emit('row_group_checkpointed', 'run_id', run, 'row_group', int(row_group))
  RUNS.notify_driver(run, '["row_group"]')
  RUNS.open_row_groups(run, plan)
end

function RUNS.close_record(run, plan, record)
  local row_group = math.floor(tonumber(record) / plan.buffer_size)
  if redis.call('HINCRBY', K.row_groups, run .. '\0' .. int(row_group), -1) <= 0 then
    RUNS.close_row_group(run, plan, row_group)
  end
end

function RUNS.is_ready(run, column, record)
  for i = 1, #column.inputs do
    if redis.call('HEXISTS', K.cells, RUNS.cell(run, record, column.inputs[i])) == 0 then
      return false
    end
  end
  return true
end

-- Whether a cell is made without a task: its condition holds, or a column that it needs was skipped.
function RUNS.is_skipped(run, column, record)
  if column.skip and redis.call('HGET', K.cells, RUNS.cell(run, record, column.skip)) == 'true' then
    return true
  end
  for i = 1, column.keeps and 0 or #column.inputs do
    if redis.call('HGET', K.cells, RUNS.cell(run, record, column.inputs[i])) == RUNS.skipped then
      return true
    end
  end
  return false
end

-- Count down the records that lack the inputs of a batch; at 0 the batch is ready.
function RUNS.reach_batch(run, plan, index, record)
  local row_group = math.floor(tonumber(record) / plan.buffer_size)
  local name = RUNS.tasks_field(run, plan, row_group, index) .. '\0waits'
  if redis.call('HINCRBY', K.row_groups, name, -1) == 0 then
    RUNS.submit_cell(run, plan, index, int(row_group))
  end
end

-- Enqueue the task of a cell that has all inputs, unless it is skipped or waits for its row group.
function RUNS.reach(run, plan, index, record)
  local column = plan.columns[index]
  if column.scope == 'g' then
    RUNS.reach_batch(run, plan, index, record)
  elseif plan.skips and RUNS.is_skipped(run, column, record) then
    for i = 1, #column.outputs do
      redis.call('HSET', K.cells, RUNS.cell(run, record, column.outputs[i]), RUNS.skipped)
    end
    RUNS.advance_record(run, plan, index, record)
  else
    RUNS.submit_cell(run, plan, index, record)
  end
end

-- Note that a column of a record is made: enqueue tasks that become ready, close a complete record. Ready tasks are
-- looked up first: a column that is skipped on the way makes others ready, and reaches these itself.
function RUNS.advance_record(run, plan, index, record)
  local feeds, is_ready = plan.columns[index].feeds, {}
  for i = 1, #feeds do
    is_ready[i] = RUNS.is_ready(run, plan.columns[feeds[i]], record)
  end
  for i = 1, #feeds do
    if is_ready[i] then
      RUNS.reach(run, plan, feeds[i], record)
    end
  end
  if redis.call('HINCRBY', K.cells, RUNS.cell(run, record, '#'), 1) == #plan.columns then
    RUNS.count(run, 'done', 1)
    RUNS.close_record(run, plan, record)
  end
end

-- Drop a record: its waiting tasks never start, and the result of a running one is ignored.
function RUNS.drop_record(run, plan, record, column_name, failure)
  EXPIRY.with_shard('cells')
  redis.call('HSET', K.cells, RUNS.cell(run, record, '!'), table.concat({ column_name, int(failure.tries),
    failure.model, failure.status, failure.reason }, '\0'))
  for index = 1, #plan.columns do
    local column = plan.columns[index]
    if column.scope == 'r' then
      TASKS.discard(RUNS.task_id(run, column, record))
    end
  end
  RUNS.count(run, 'dropped', 1)
  emit('non_retryable_dropped', 'run_id', run, 'record', record, 'column', column_name)
  RUNS.close_record(run, plan, record)
  local row_group = math.floor(tonumber(record) / plan.buffer_size)
  for index = 1, #plan.columns do
    local column = plan.columns[index]
    if column.scope == 'g' and not RUNS.is_ready(run, column, record)
      and redis.call('HEXISTS', K.row_groups, run .. '\0' .. int(row_group)) == 1 then
      RUNS.reach_batch(run, plan, index, record) -- it waits for this record no more
    end
  end
end

-- The open records that a task of a run stands for: a task may outlive its record, which was dropped
-- by another column and perhaps written out since.
function RUNS.open_records(run, plan, column, number)
  local first, last = tonumber(number), tonumber(number)
  if column.scope == 'g' then
    first, last = RUNS.records_of(plan, first)
  end
  local records, is_among = {}, {}
  for i = first, last do
    local record = int(i)
    -- a batch may be made once more for records that were dropped when it was made first
    if RUNS.is_open(run, plan, record) and not (column.scope == 'g' and RUNS.is_made(run, column, record)) then
      records[#records + 1] = record
      is_among[record] = true
    end
  end
  return records, is_among
end

-- Store the values of a finished task (record, name, value, ... in ARGV) and go on from them.
function RUNS.complete_cells(task, from, to)
  local run, plan = task.run, RUNS.plan_of(task.run)
  if not plan then
    return
  end
  local index = tonumber(task.column)
  local records, is_among = RUNS.open_records(run, plan, plan.columns[index], task.number)
  EXPIRY.with_shard('cells')
  for i = from, to, 3 do
    if is_among[ARGV[i]] then
      redis.call('HSET', K.cells, RUNS.cell(run, ARGV[i], ARGV[i + 1]), ARGV[i + 2])
    end
  end
  USE.count_made(run, index, #records)
  RUNS.count_finished(run, plan, index, #records, false)
  local column, is_left = plan.columns[index], false
  for i = 1, #records do
    if column.scope == 'r' or #column.inputs == 0 or RUNS.is_made(run, column, records[i]) then
      RUNS.advance_record(run, plan, index, records[i])
    else
      is_left = true -- it was dropped when the batch read its inputs, and is open again
    end
  end
  if is_left and tonumber(redis.call('HGET', K.row_groups,
    RUNS.tasks_field(run, plan, task.number, index) .. '\0waits')) == 0 then
    RUNS.submit_cell(run, plan, index, task.number)
  end
end

-- Drop the open records of a task that cannot be made, or stop the run where too many cells fail: then nothing is
-- dropped, as each such cell is tried again once the run is resumed.
function RUNS.drop_cells(task, failure)
  local run, plan = task.run, RUNS.plan_of(task.run)
  if not plan then
    return
  end
  local index = tonumber(task.column)
  local column = plan.columns[index]
  local records = RUNS.open_records(run, plan, column, task.number)
  RUNS.note_trouble(run, failure)
  if RUNS.is_stopped(run, plan) then
    return
  end
  local is_too_much, failed, finished = RUNS.count_finished(run, plan, index, #records, true)
  if is_too_much then
    RUNS.stop(run, plan, index, failed, finished, failure.reason)
    return
  end
  for i = 1, #records do
    RUNS.drop_record(run, plan, records[i], column.name, failure)
  end
end

-- Let a failed task wait for a salvage round, unless the run has no retry left.
function RUNS.try_again(id, task, available_us, failure)
  local run, plan = task.run, RUNS.plan_of(task.run)
  if plan and RUNS.is_wanted(task) and not RUNS.may_retry(run, plan) then
    TASKS.forget(id)
    failure.reason = 'retry_budget_exhausted: ' .. failure.reason
    RUNS.drop_cells(task, failure)
    return
  elseif plan then
    RUNS.note_trouble(run, failure)
  end
  LOST.put_back(id, task, available_us + RUNS.salvage_us, task.tries + 1)
  if plan and redis.call('ZSCORE', K.delayed, id) then
    RUNS.wait_for_salvage(run, plan, id, task, available_us)
  end
end
