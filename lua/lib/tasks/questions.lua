-- The answers of a task pool to an operator's questions.
-- @include lib/tasks/capture_text
-- @include lib/tasks/capture_audit
-- @include lib/tasks/select
-- @include lib/tasks/capture_explain
-- @include lib/shard/turns_taken
QUESTIONS.reads = { explain = EXPLAIN.pool, snapshot = VIEW.pool }
QUESTIONS.lease_columns = { { 'task held the longest', 'task_id' }, { 'group', 'group' }, { 'asks for', 'asks_for' },
  { 'member', 'member_id' }, { 'held for', 'held_for_seconds', TEXT.span } }
QUESTIONS.held_columns = { { 'free slots', 'free_slots' }, { 'functions', 'functions' } }
QUESTIONS.ready_columns = { { 'turn', 'turn' }, { 'group', 'group' }, { 'task', 'task_id' }, { 'function', 'function' },
  { 'waits for', 'waits_for_seconds', TEXT.span }, { 'held back by', 'held_back_by' } }
QUESTIONS.beside_columns = { { 'waits beside the line', 'place' }, { 'task', 'task_id' }, { 'group', 'group' },
  { 'function', 'function' }, { 'since', 'waits_for_seconds', function(seconds, task)
    return task.place == 'delayed' and 'due in ' .. TEXT.span(task.due_in_seconds) or TEXT.span(seconds)
  end } }

function QUESTIONS.lease_row(id, lease)
  return { lease_id = id, task_id = lease.task_id or id, group = lease.group, asks_for = lease.signature,
    member_id = lease.member }
end

function QUESTIONS.add_held(row)
  row.free_slots = tonumber(redis.call('ZSCORE', K.idle, row.member_id) or 0)
  row.functions = QUESTIONS.count_under(K.held, row.member_id .. '\0function')
end

function QUESTIONS.show(rows)
  return REPORT.lines(string.match(K.meta, '{pool:(.-)}'), rows)
end

-- The time since a task became available: its score is an instant of the server's clock in milliseconds.
function QUESTIONS.waits_for(task)
  local since_us = tonumber(task.score) and tonumber(task.score) * 1000
  return since_us and TEXT.in_seconds(math.max(0, meta.last_us - since_us)) or nil
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

-- Why a task does not go now, in a word; nil where it may.
function QUESTIONS.held_by(task, line, kept)
  if meta.state == 'paused' then
    return 'paused'
  elseif line == 'capped' then
    return 'admitted_limit'
  end
  return SELECT.holds_back(CLASSES.of(task), kept) or nil
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
      list[#list + 1] = { place = kind, task_id = id, group = task and task.group, ['function'] = task and task.fn,
        waits_for_seconds = task and QUESTIONS.waits_for(task),
        due_in_seconds = kind == 'delayed' and TEXT.in_seconds(tonumber(redis.call('ZSCORE', K.delayed, id)) - now_us)
          or cjson.null }
    end
  end
  TEXT.add_rows(lines, 'task_beside_line', QUESTIONS.beside_columns, list, total)
end

-- The waiting tasks in order, with their ages and the reasons for their waits.
function QUESTIONS.waiters(rows)
  STATE.load()
  if not meta.generation then
    return nil
  end
  LINES.load()
  local lines, list, kept, ready = {}, {}, RESERVE.kept(), QUESTIONS.ready_tasks(rows)
  TEXT.add_row(lines, 'totals', { ready = meta.queued, delayed = meta.delayed, parked = meta.parked,
    unserved = meta.unserved, suspects = meta.suspect_tasks, running = meta.running,
    members = redis.call('ZCARD', K.members) })
  TEXT.add_text(lines, 'ready ' .. int(meta.queued) .. ', delayed ' .. int(meta.delayed) .. ', parked '
    .. int(meta.parked) .. ', unserved ' .. int(meta.unserved) .. ', suspects ' .. int(meta.suspect_tasks)
    .. ', running ' .. int(meta.running) .. ', members ' .. redis.call('ZCARD', K.members))
  for i = 1, math.min(rows, #ready) do
    local task = TASKS.read(ready[i].id)
    if task then
      list[#list + 1] = { turn = i, group = task.group, task_id = ready[i].id, ['function'] = task.fn,
        waits_for_seconds = QUESTIONS.waits_for(task), held_back_by = QUESTIONS.held_by(task, ready[i].line, kept) }
    end
  end
  TEXT.add_rows(lines, 'task', QUESTIONS.ready_columns, list, meta.queued)
  QUESTIONS.add_beside(lines, rows)
  return lines
end

QUESTIONS.parts_before_tenant = { ['local'] = 2, model = 4, custom_model = 4 } -- of a group's name: kind and resource

-- The tenant in a group's name; the name itself where it has no tenant.
function QUESTIONS.tenant_of(group)
  local part = split(group, '/')
  return part[(QUESTIONS.parts_before_tenant[part[1]] or #part) + 1] or group
end

-- Which tenant and group floods, and what each got in the last minute against its weight.
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
  TAKEN.add_table(lines, names, rows, 'got', QUESTIONS.tenant_of)
  return lines
end
