-- Salvage rounds (design 05, *Failures*): a failed task that may succeed later waits until the rest of its row group
-- is through, then all such tasks are tried again, each after its backoff. So a failing task delays its own
-- row group alone. After `salvage_us` a task is tried again in any case, as the rest may wait for long.
-- @include lib/runs/failures
RUNS.salvage_us = 60000000

-- The field that lists a row group's tasks waiting for salvage: id=available_us, "," between.
function RUNS.salvage_field(run, row_group)
  return run .. '\0' .. int(row_group) .. '\0!'
end

function RUNS.waiting_for_salvage(run, row_group)
  local text, list = redis.call('HGET', K.row_groups, RUNS.salvage_field(run, row_group)), {}
  local items = text and split(text, ',') or {}
  for i = 1, #items do
    local part = split(items[i], '=')
    list[i] = { id = part[1], available_us = tonumber(part[2]) }
  end
  return list
end

-- Let a task wait for the next round; `RUNS.begin_rounds` looks at the end of the call whether it is time.
function RUNS.wait_for_salvage(run, plan, id, task, available_us)
  local row_group = RUNS.row_group_of(plan, task)
  local items, list = {}, RUNS.waiting_for_salvage(run, row_group)
  for i = 1, #list do
    if list[i].id ~= id then
      items[#items + 1] = list[i].id .. '=' .. int(list[i].available_us)
    end
  end
  items[#items + 1] = id .. '=' .. int(available_us)
  redis.call('HSET', K.row_groups, RUNS.salvage_field(run, row_group), table.concat(items, ','))
  RUNS.touch_row_group(run, row_group)
end

-- Let the end of the call check a run for a salvage round.
function RUNS.look_again(run)
  meta.rounds = meta.rounds or {}
  meta.rounds[run] = meta.rounds[run] or {}
end

function RUNS.touch_row_group(run, row_group)
  RUNS.look_again(run)
  meta.rounds[run][row_group] = true
end

-- Begin a round where nothing else of the row group is left.
function RUNS.begin_round(run, plan, row_group)
  local list = RUNS.waiting_for_salvage(run, row_group)
  if #list == 0 or #list < RUNS.tasks_in(run, plan, row_group) then
    return
  end
  redis.call('HDEL', K.row_groups, RUNS.salvage_field(run, row_group))
  emit('salvage_redispatched', 'run_id', run, 'row_group', int(row_group), 'tasks', int(#list))
  for i = 1, #list do
    local id, task = list[i].id, TASKS.read(list[i].id)
    if task and redis.call('ZSCORE', K.delayed, id) and QUEUE.remove(id, task) then
      QUEUE.let_wait(id, task, math.max(now_us, list[i].available_us))
    end
  end
end

function RUNS.begin_rounds()
  for run, row_groups in pairs(meta.rounds or {}) do
    local plan = RUNS.plan_of(run)
    for row_group in pairs(plan and row_groups or {}) do
      RUNS.begin_round(run, plan, row_group)
    end
    if plan and RUNS.is_stopped(run, plan) then
      RUNS.notify_driver(run, '["row_group"]') -- the driver waits for the running tasks
    end
  end
end
