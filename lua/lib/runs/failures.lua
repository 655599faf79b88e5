-- Failures of a run's tasks (design 05): its error rate, the retries that it may take, and what each model failed with.
-- A failure is { reason, model, status, tries }; model and status are empty where no call failed.
-- @include lib/runs/row_groups
RUNS.usual_window, RUNS.usual_rate, RUNS.most_troubles = 20, 0.5, 64

function RUNS.failure_of(task, reason, model, status)
  return { reason = reason, model = model or '', status = status or '', tries = task.tries + 1 }
end

-- How often each model failed with each status or kind of error, as model NUL status NUL count, "\1" between.
function RUNS.note_trouble(run, failure)
  if failure.model == '' then
    return
  end
  local text, items, is_known = redis.call('HGET', K.progress, run .. '\0troubles'), {}, false
  items = text and split(text, '\1') or items
  for i = 1, #items do
    local part = split(items[i], '\0')
    if part[1] == failure.model and part[2] == failure.status then
      items[i], is_known = part[1] .. '\0' .. part[2] .. '\0' .. int(tonumber(part[3]) + 1), true
    end
  end
  if not is_known and #items < RUNS.most_troubles then
    items[#items + 1] = failure.model .. '\0' .. failure.status .. '\0' .. 1
  end
  EXPIRY.with_shard('progress')
  redis.call('HSET', K.progress, run .. '\0troubles', table.concat(items, '\1'))
end

function RUNS.troubles_of(run)
  local text, list = redis.call('HGET', K.progress, run .. '\0troubles'), {}
  local items = text and split(text, '\1') or {}
  for i = 1, #items do
    local part = split(items[i], '\0')
    list[i] = '[' .. cjson.encode(part[1]) .. ',' .. cjson.encode(part[2]) .. ',' .. int(tonumber(part[3])) .. ']'
  end
  return '[' .. table.concat(list, ',') .. ']'
end

-- Count finished cells of a column, in a window of as many at least as the plan says and at most twice as many:
-- finished|failed of this half and of the one before. Returns whether too many of them failed.
function RUNS.count_finished(run, plan, index, cells, is_failed)
  local name = run .. '\0window\0' .. int(index)
  local part = split(redis.call('HGET', K.progress, name) or '0|0|0|0', '|')
  local least, finished, failed = plan.min_error_window or RUNS.usual_window, part[1] + cells,
    part[2] + (is_failed and cells or 0)
  local all, all_failed = finished + part[3], failed + part[4]
  if finished >= least then
    part[3], part[4], finished, failed = int(finished), int(failed), 0, 0
  end
  EXPIRY.with_shard('progress')
  redis.call('HSET', K.progress, name, table.concat({ int(finished), int(failed), part[3], part[4] }, '|'))
  return all >= least and all_failed / all > (plan.max_error_rate or RUNS.usual_rate), all_failed, all
end

-- Too many cells of a column fail: tasks that wait never start, those that run end, nothing new is admitted. The
-- run stays, for `resume`.
function RUNS.stop(run, plan, index, failed, finished, reason)
  local column = plan.columns[index].name
  redis.call('HSET', K.progress, run .. '\0stopped', table.concat({ column, int(failed), int(finished), reason }, '\0'))
  plan.is_stopped = true
  emit('run_stopped', 'run_id', run, 'column', column)
  RUNS.each_open(run, function(row_group)
    redis.call('HDEL', K.row_groups, RUNS.salvage_field(run, row_group))
    RUNS.discard_waiting(run, plan, row_group)
  end)
  RUNS.look_again(run)
end

-- The stop of a run for `run_collect`, or null: column, failed, finished, last reason, tasks that still run.
function RUNS.stop_of(run, plan)
  local text = RUNS.is_stopped(run, plan) and redis.call('HGET', K.progress, run .. '\0stopped')
  if not text then
    return 'null'
  end
  local column, failed, finished, reason = string.match(text, '^([^%z]*)%z([^%z]*)%z([^%z]*)%z(.*)$')
  local running = 0
  RUNS.each_open(run, function(row_group)
    running = running + RUNS.tasks_in(run, plan, row_group)
  end)
  return '[' .. table.concat({ cjson.encode(column), failed, finished, cjson.encode(reason), int(running) }, ',') .. ']'
end

-- Whether a run may try a task again; each try behind the first counts.
function RUNS.may_retry(run, plan)
  EXPIRY.with_shard('progress')
  return RUNS.count(run, 'retries', 1) <= (plan.max_retries or math.huge)
end
