-- What an operator asks of a task pool.
-- @include lib/tasks/capture_text
-- @include lib/tasks/capture_audit
-- @include lib/tasks/select
-- @include lib/shard/turns_taken
QUESTIONS.lease_columns = { 'task held the longest', 'group', 'asks for', 'member', 'held for' }

function QUESTIONS.lease_row(id, lease)
  return { lease.task_id or id, lease.group, lease.signature, lease.member }
end

function QUESTIONS.show(rows)
  return REPORT.lines(string.match(K.meta, '{pool:(.-)}'), rows)
end

-- How long a task has been available: its score is an instant of the server's clock in milliseconds.
function QUESTIONS.waits_for(task)
  local since_us = tonumber(task.score) and tonumber(task.score) * 1000
  return since_us and TEXT.age(math.max(0, meta.last_us - since_us)) or '-'
end

-- The first ready tasks, in the order of their groups' turns; of a group in the order of arrival. Each group's first
-- task comes before the second one of any.
function QUESTIONS.ready_tasks(rows)
  local fronts, list = LINES.first_heads(LINES.waiting(), rows), {}
  for i = 1, #fronts do
    local name = fronts[i].group
    local found = redis.call('ZRANGE', K.fifo, '[' .. name .. '\0', '(' .. name .. '\1', 'BYLEX', 'LIMIT', 0,
      math.ceil(rows / #fronts))
    for j = 1, #found do
      list[#list + 1] = { id = split(found[j], '\0')[3], round = j, front = i, line = fronts[i].line }
    end
  end
  table.sort(list, function(a, b)
    if a.round ~= b.round then
      return a.round < b.round
    end
    return a.front < b.front
  end)
  return list
end

-- Why a task does not go now, in a word; "-" where it may.
function QUESTIONS.held_by(task, line, kept)
  if meta.state == 'paused' then
    return 'paused'
  elseif line == 'capped' then
    return 'admitted_limit'
  end
  return SELECT.holds_back(CLASSES.of(task), kept) or '-'
end

-- Tasks that wait elsewhere than in line, the first of each kind.
function QUESTIONS.add_beside(lines, rows)
  local list, total = {}, 0
  for _, kind in ipairs({ 'suspect_tasks', 'unserved', 'parked', 'delayed' }) do
    local part = ({ suspect_tasks = 2, unserved = 3, parked = 3, delayed = 1 })[kind]
    local found = meta[kind] > 0 and redis.call('ZRANGE', K[kind], 0, rows - 1) or {}
    total = total + meta[kind]
    for i = 1, math.min(#found, rows - #list) do
      local id = split(found[i], '\0')[part]
      local task = TASKS.read(id)
      list[#list + 1] = { kind, id, task and task.group or '?', task and task.fn or '?',
        kind == 'delayed' and 'for ' .. TEXT.age(tonumber(redis.call('ZSCORE', K.delayed, id)) - now_us)
        or task and QUESTIONS.waits_for(task) or '?' }
    end
  end
  TEXT.add_table(lines, { 'waits beside the line', 'task', 'group', 'function', 'since' }, list, total)
end

-- Who waits, in what order, since when, and what holds each back.
function QUESTIONS.waiters(rows)
  STATE.load()
  if not meta.generation then
    return nil
  end
  LINES.load()
  local lines, list, kept, ready = {}, {}, RESERVE.kept(), QUESTIONS.ready_tasks(rows)
  TEXT.add_text(lines, 'ready ' .. int(meta.queued) .. ', delayed ' .. int(meta.delayed) .. ', parked '
    .. int(meta.parked) .. ', unserved ' .. int(meta.unserved) .. ', suspects ' .. int(meta.suspect_tasks)
    .. ', running ' .. int(meta.running) .. ', members ' .. redis.call('ZCARD', K.members))
  for i = 1, math.min(rows, #ready) do
    local task = TASKS.read(ready[i].id)
    if task then
      list[#list + 1] = { i, task.group, ready[i].id, task.fn, QUESTIONS.waits_for(task),
        QUESTIONS.held_by(task, ready[i].line, kept) }
    end
  end
  TEXT.add_table(lines, { 'turn', 'group', 'task', 'function', 'waits for', 'held back by' }, list, meta.queued)
  QUESTIONS.add_beside(lines, rows)
  return lines
end

-- Which group floods, and what each got in the last minute against its weight.
function QUESTIONS.shares(rows)
  STATE.load()
  if not meta.generation then
    return nil
  end
  LINES.load()
  local lines, names, fronts = {}, {}, LINES.first_heads(LINES.waiting(), rows)
  for i = 1, #fronts do
    names[i] = fronts[i].group
  end
  TAKEN.add_table(lines, names, rows, 'got')
  return lines
end
