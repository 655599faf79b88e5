-- The waiting groups of a pool with their reasons, for programs: queue and ledger of one instant.
-- @include lib/tasks/select
local VIEW = { tasks_counted = 1000 } -- of all groups together; a larger demand is shown as incomplete

-- The third part of a text whose first one is a group's name.
function VIEW.third(text, separator, g)
  local from = string.find(text, separator, #g.name + 2, true)
  return from and string.sub(text, from + 1, (string.find(text, separator, from + 1, true) or 0) - 1)
end

-- The demand of a group's first ready tasks by signature: read together, and of each no more than that.
function VIEW.demand_of(g, most)
  local counts, found = {}, redis.call('ZRANGE', K.fifo, '[' .. g.name .. '\0', '(' .. g.name .. '\1',
    'BYLEX', 'LIMIT', 0, most)
  local ids = {}
  for i = 1, #found do
    ids[i] = VIEW.third(found[i], '\0', g) or DAMAGE.raise('fifo')
  end
  local texts = #ids > 0 and redis.call('HMGET', K.tasks, unpack(ids)) or {}
  for i = 1, #texts do
    local signature = texts[i] and VIEW.third(texts[i], '|', g) or DAMAGE.raise('tasks')
    counts[signature] = (counts[signature] or 0) + 1
  end
  return counts, #found
end

function VIEW.of(g)
  return { name = g.name, weight = g.weight, admitted_limit = g.admitted_limit or '',
    waiting = g.waiting, running = tonumber(g.running) or 0, out = g.out or '', debt = g.debt or '',
    signature = string.match(g.signature or '', '^[^;]*') }
end

-- Count the tasks that wait beside the lines, of the first ones, with their groups.
function VIEW.count_beside(list, rows, left)
  local by_name = {}
  for i = 1, #list do
    by_name[list[i].name] = list[i]
  end
  local found = {}
  for kind, place in pairs({ unserved = 3, suspect_tasks = 2 }) do
    local names = redis.call('ZRANGE', K[kind], 0, left - 1)
    for i = 1, #names do
      found[#found + 1] = split(names[i], '\0')[place]
    end
  end
  for i = 1, #found do
    local task = TASKS.named(found[i])
    local row = by_name[task.group]
    if not row and #list < rows then
      row = VIEW.of(GROUPS.of(task.group))
      row.demand, row.fits, list[#list + 1], by_name[task.group] = {}, false, row, row
    end
    if row then
      row.waiting = row.waiting + 1
      row.demand[task.signature] = (row.demand[task.signature] or 0) + 1
    end
  end
  return left - #found
end

function VIEW.groups(rows)
  local list, heads_found, left = {}, LINES.first_heads(LINES.waiting(), rows), VIEW.tasks_counted
  local kept, names = RESERVE.kept(), {}
  for i = 1, #heads_found do
    names[i] = heads_found[i].group
  end
  GROUPS.read_ahead(names)
  for i = 1, #heads_found do
    local g = GROUPS.of(heads_found[i].group)
    local row, demand, counted = VIEW.of(g), VIEW.demand_of(g, left)
    row.demand, left = demand, left - counted
    row.fits = not SELECT.holds_back(g.signature, kept)
    list[i] = row
  end
  left = VIEW.count_beside(list, rows, left)
  local listed, recent = {}, redis.call('ZRANGE', K.idle_groups, 0, rows - 1, 'REV')
  for i = 1, #list do
    listed[list[i].name] = true
  end
  for i = 1, #list < rows and #recent or 0 do
    local g = GROUPS.of(recent[i])
    if #list < rows and g.waiting == 0 and (tonumber(g.running) or 0) > 0 and not listed[g.name] then
      list[#list + 1] = VIEW.of(g)
    end
  end
  return list, left > 0
end

function VIEW.pool(rows)
  STATE.load()
  if not meta.generation then
    return { generation = '' }
  end
  LINES.load()
  local list, is_complete = VIEW.groups(rows)
  local _, reasons = SELECT.next()
  local due = meta.delayed > 0 and redis.call('ZRANGE', K.delayed, 0, 0, 'WITHSCORES')[2]
  return { generation = meta.generation, now_us = int(now_us), state = meta.state,
    policy = meta.policy, queued = meta.queued + meta.unserved + meta.suspect_tasks, delayed = meta.delayed, parked = meta.parked,
    running = meta.running, limits = limits, leased = ledger, kept = RESERVE.kept() or {},
    groups = list, is_complete = is_complete, reasons = reasons, due_us = due or '' }
end
