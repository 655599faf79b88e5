-- One look at a task pool as lines for people. Names stand encoded as in the keys, so none can
-- disturb a terminal.
-- @include lib/table_lines
-- @include lib/runs/state
-- @include lib/shard/identity
-- @include lib/tasks/lost
local REPORT = {}

-- The names of a hash in order, at most `rows` of them, and how many there are.
function REPORT.first_names(names, rows)
  table.sort(names)
  local first = {}
  for i = 1, math.min(rows, #names) do
    first[i] = names[i]
  end
  return first, #names
end

function REPORT.add_title(lines, name)
  TEXT.add_parts(lines, { name, 'generation ' .. meta.generation,
    'clock ' .. string.format('%.6f', now_us / 1000000), 'sequence ' .. int(meta.sequence),
    'virtual time ' .. string.format('%.6g', meta.virtual_time) }, '  ')
  TEXT.add_text(lines, 'queued ' .. int(meta.queued) .. ', delayed ' .. int(meta.delayed) .. ', parked '
    .. int(meta.parked) .. ', running '
    .. int(meta.running) .. ', groups waiting ' .. redis.call('ZCARD', K.ready) .. ', members '
    .. redis.call('ZCARD', K.members) .. ', idle ' .. redis.call('ZCOUNT', K.idle, '(0', '+inf'))
  TEXT.add_text(lines, 'policy ' .. (meta.policy == '' and 'strict' or meta.policy) .. ', state '
    .. (meta.state == '' and 'open' or meta.state)
    .. (meta.first_task ~= '' and ', first and not fitting for ' .. TEXT.age(now_us - meta.first_since_us)
      .. ': ' .. meta.first_task or ''))
  TEXT.add_text(lines, 'overdue: members ' .. redis.call('ZCOUNT', K.members, '-inf', int(now_us))
    .. ', delayed ' .. redis.call('ZCOUNT', K.delayed, '-inf', int(now_us)))
end

-- Tasks that wait beside the queue: nobody serves their function, or they were lost with a member.
function REPORT.add_set_aside(lines, rows)
  if meta.suspect_tasks > 0 then
    TEXT.add_text(lines, 'lost with a member, run again one at a time: ' .. int(meta.suspect_tasks))
  end
  local list, from = {}, '-'
  while #list < rows do
    local first = redis.call('ZRANGE', K.unserved, from, '+', 'BYLEX', 'LIMIT', 0, 1)[1]
    if not first then
      break
    end
    local part = split(first, '\0')
    list[#list + 1] = { part[1],
      redis.call('ZLEXCOUNT', K.unserved, '[' .. part[1] .. '\0', '(' .. part[1] .. '\1'), part[3] }
    from = '(' .. part[1] .. '\1'
  end
  TEXT.add_table(lines, { 'function that no live worker has', 'tasks', 'first task' }, list, #list)
end

function REPORT.add_resources(lines, rows)
  local known, names = {}, {}
  for _, amounts in pairs({ limits, ledger }) do
    for resource in pairs(amounts) do
      if not known[resource] then
        known[resource] = true
        names[#names + 1] = resource
      end
    end
  end
  local first, total = REPORT.first_names(names, rows)
  local list = {}
  for i = 1, #first do
    list[i] = { first[i], int(LEDGER.limit_of(first[i])), int(ledger[first[i]] or 0) }
  end
  TEXT.add_table(lines, { 'resource', 'limit', 'in use' }, list, total)
end

-- Why a queue stands still: what is asked for, by how many groups, and whether it fits now.
function REPORT.add_asked(lines, rows)
  local stored, names = read_hash(K.signatures), {}
  for signature in pairs(stored) do
    names[#names + 1] = signature
  end
  local first, total = REPORT.first_names(names, rows)
  local list = {}
  for i = 1, #first do
    local part = split(stored[first[i]], '|')
    list[i] = { first[i], part[1], part[2], LEDGER.fits(first[i]) and 'yes' or 'no' }
  end
  TEXT.add_table(lines, { 'first tasks ask for', 'groups', 'at their limit', 'fits now' }, list, total)
end

function REPORT.group_row(name)
  local g = GROUPS.of(name)
  return { name, g.weight, g.tag and string.format('%.6g', g.tag) or '-', int(g.waiting),
    g.running ~= '' and g.running or 0, TEXT.or_dash(g.admitted_limit), TEXT.or_dash(g.line), TEXT.or_dash(g.debt) }
end

-- Groups that wait, in the order of their lines; then those that only run, the latest first.
function REPORT.add_groups(lines, rows)
  local waiting = redis.call('ZRANGE', K.ready, '-', '+', 'BYLEX', 'LIMIT', 0, rows)
  local list = {}
  for i = 1, #waiting do
    list[i] = REPORT.group_row(split(waiting[i], '\0')[5])
  end
  local total = redis.call('ZCARD', K.ready)
  local recent = redis.call('ZRANGE', K.idle_groups, 0, rows - 1, 'REV')
  for i = 1, #recent do
    local g = GROUPS.of(recent[i])
    if #list < rows and g.waiting == 0 and (tonumber(g.running) or 0) > 0 then
      list[#list + 1] = REPORT.group_row(recent[i])
      total = total + 1
    end
  end
  TEXT.add_table(lines, { 'group', 'weight', 'tag', 'waiting', 'running', 'admitted limit', 'line', 'debt' },
    list, total)
end

-- Members by expiry, so those overdue come first; and how old the eldest of a few leases is.
function REPORT.eldest_lease(member)
  local items = redis.call('ZRANGE', K.held, '[' .. member .. '\0lease\0',
    '(' .. member .. '\0lease\1', 'BYLEX', 'LIMIT', 0, 10)
  local eldest
  for i = 1, #items do
    local text = redis.call('HGET', K.leases, split(items[i], '\0')[3])
    local acquired_us = text and tonumber(LEASES.parse(text).acquired_us)
    if acquired_us and (not eldest or acquired_us < eldest) then
      eldest = acquired_us
    end
  end
  return eldest and TEXT.age(now_us - eldest) or '-'
end

function REPORT.add_members(lines, rows)
  local stored, list = redis.call('ZRANGE', K.members, '-inf', '+inf', 'BYSCORE', 'LIMIT', 0, rows,
    'WITHSCORES'), {}
  local processes = {}
  for i = 1, #stored, 2 do
    processes[#processes + 1] = TEXT.process(stored[i], IDENTITY.of(stored[i]), now_us)
    local member, left = stored[i], tonumber(stored[i + 1]) - now_us
    list[#list + 1] = { member, TEXT.expires_in(left),
      redis.call('ZLEXCOUNT', K.held, '[' .. member .. '\0lease\0', '(' .. member .. '\0lease\1'),
      REPORT.eldest_lease(member), TEXT.or_dash(redis.call('ZSCORE', K.idle, member) or nil) }
  end
  TEXT.add_table(lines, { 'member', 'expires in', 'leases', 'eldest of 10', 'free slots told' }, list,
    redis.call('ZCARD', K.members))
  TEXT.add_table(lines, TEXT.process_columns, processes, redis.call('ZCARD', K.members))
end

function REPORT.add_runs(lines, rows)
  local stored, names = redis.call('HKEYS', K.runs), {}
  for i = 1, #stored do
    if not string.find(stored[i], '\0', 1, true) then
      names[#names + 1] = stored[i]
    end
  end
  local first, total = REPORT.first_names(names, rows)
  local list = {}
  for i = 1, #first do
    local run, plan = first[i], RUNS.plan_of(first[i])
    list[i] = { run, int(plan.records), int(RUNS.counted(run, 'done')), int(RUNS.counted(run, 'dropped')),
      int(plan.row_groups), int(RUNS.counted(run, 'open')), int(RUNS.counted(run, 'unwritten')),
      int(RUNS.counted(run, 'written')) }
  end
  TEXT.add_table(lines, { 'run', 'records', 'done', 'dropped', 'row groups', 'open', 'to be written',
    'written' }, list, total)
end

function REPORT.lines(name, rows)
  STATE.load()
  if not meta.generation then
    return TEXT.unused(name, 'pool')
  end
  local lines = {}
  REPORT.add_title(lines, name)
  REPORT.add_set_aside(lines, rows)
  REPORT.add_resources(lines, rows)
  REPORT.add_asked(lines, rows)
  REPORT.add_groups(lines, rows)
  REPORT.add_members(lines, rows)
  REPORT.add_runs(lines, rows)
  return lines
end
