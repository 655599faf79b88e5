-- The books of a task pool, worked out again from its tasks and leases, and compared with what is
-- stored.
local MAX_ENTRIES = 100000
local books = { ledger = {}, claims = {}, attended = {}, lost = {}, suspect_leases = {}, held = {}, fifo = {},
  delayed = {}, parked = {}, unserved = {}, suspect_tasks = {}, leased = {}, waiting = {},
  running = {}, away = {}, first = {}, ready = {}, lines = {}, out = {}, functions = {} }

local function add(counts, name, amount)
  counts[name] = (counts[name] or 0) + amount
end

local function book_lease(id, lease)
  books.held[lease.member .. '\0lease\0' .. id] = true
  if books.leased[lease.task_id] then
    differs('leases', lease.task_id, 'one lease', 'another')
  end
  books.leased[lease.task_id], lease.id = lease, id
  add(books.running, lease.group, 1)
  local out = books.out[lease.group] or {}
  books.out[lease.group] = out
  for resource, amount in pairs(amounts_of(lease.signature).amounts) do
    add(books.ledger, resource, amount)
    add(out, resource, amount)
  end
  if not books.members[lease.member] then
    differs('members', lease.member .. ' of lease ' .. id, 'present', 'absent')
  end
end

local function book_leases()
  local finished = read_names('finished')
  for id, text in pairs(read_hash(K.leases)) do
    local lease = parse_lease(text)
    if lease.acquired_us then
      book_lease(id, lease)
    else
      differs('leases', id, 'six values between |', text)
    end
    if finished[id] then
      differs('finished', id, 'absent while its lease is live', 'present')
    end
  end
end

local function book_waiting(id, task)
  local member = fifo_member(id, task)
  books.fifo[member] = true
  add(books.waiting, task.group, 1)
  local first = books.first[task.group]
  if not first or member < first.member then
    books.first[task.group] = { member = member, id = id, class = CLASSES.of(task) }
  end
end

-- A task is in one place: ready, delayed, parked or on a lease.
local function book_task(id, task, found)
  local lease = books.leased[id]
  local places = (found.fifo[fifo_member(id, task)] and 1 or 0) + (found.delayed[id] and 1 or 0)
    + (found.parked[parked_member(id, task)] and 1 or 0) + (lease and 1 or 0)
    + (found.unserved[CLASSES.unserved_member(id, task)] and 1 or 0)
    + (found.suspect_tasks[LOST.member(id, task)] and 1 or 0)
  expect('tasks', 'places of ' .. id, 1, places)
  if task.losses > 0 then
    books.lost[id] = task.losses
    books.suspect_leases[id] = lease and lease.id
  end
  if lease then
    expect('leases', 'signature of ' .. id, task.signature, lease.signature)
    expect('leases', 'group of ' .. id, task.group, lease.group)
  elseif found.delayed[id] then
    books.delayed[id] = true
    add(books.away, task.group, 1)
  elseif found.parked[parked_member(id, task)] then
    books.parked[parked_member(id, task)] = true
    add(books.away, task.group, 1)
  elseif found.unserved[CLASSES.unserved_member(id, task)] then
    books.unserved[CLASSES.unserved_member(id, task)] = true
    add(books.away, task.group, 1)
  elseif found.suspect_tasks[LOST.member(id, task)] then
    books.suspect_tasks[LOST.member(id, task)] = true
    add(books.away, task.group, 1)
  else
    book_waiting(id, task)
  end
  if not books.groups[task.group] then
    differs('groups', task.group, 'present as it has tasks', 'absent')
  end
end

-- Who was lost has its members noted, and is watched where it runs.
local function audit_losses()
  local losses, watched = read_hash(K.losses), {}
  for id in pairs(losses) do
    if not books.lost[id] then
      differs('losses', id, 'absent', 'present')
    end
  end
  for id, times in pairs(books.lost) do
    expect('losses', 'members of ' .. id, times, losses[id] and #split(losses[id], ',') or 0)
  end
  for member, text in pairs(read_hash(K.watched)) do
    watched[string.match(text, '^%a+ (.*)$') or ''] = member
  end
  for id, lease_id in pairs(books.suspect_leases) do
    expect('watched', 'member of ' .. lease_id, books.leased[id].member, watched[lease_id])
    watched[lease_id] = nil
  end
  for lease_id in pairs(watched) do
    differs('watched', lease_id, 'absent', 'present')
  end
  expect('meta', 'lost', redis.call('HLEN', K.losses), meta.lost)
end

local function book_tasks()
  local found = { fifo = read_names('fifo'), delayed = read_names('delayed'),
    parked = read_names('parked'), unserved = read_names('unserved'),
    suspect_tasks = read_names('suspect_tasks') }
  for id, text in pairs(books.tasks) do
    local task = parse_task(text)
    if task.number then
      book_task(id, task, found)
    else
      differs('tasks', id, 'ten values between |', text)
    end
  end
  audit_losses()
  for id in pairs(books.leased) do
    if not books.tasks[id] then
      differs('tasks', id, 'present as it has a lease', 'absent')
    end
  end
  for kind, names in pairs(found) do
    expect_names(kind, books[kind], names)
  end
end

local function book_line(g)
  local line = books.lines[g.signature] or { open = 0, capped = 0, weight = 0 }
  books.lines[g.signature] = line
  if line[g.line] then
    line[g.line] = line[g.line] + 1
    line.weight = line.weight + millionths(g.weight)
  end
end

-- Each group's counts, and its place in line: that of its first task's signature, by its limit.
local function book_group(name)
  local g, first = group(name), books.first[name]
  local running, limit = tonumber(g.running) or 0, tonumber(g.admitted_limit)
  expect('groups', 'waiting of ' .. name, books.waiting[name] or 0, g.waiting)
  expect('groups', 'running of ' .. name, books.running[name] or 0, running)
  expect('groups', 'away of ' .. name, books.away[name] or 0, tonumber(g.away) or 0)
  expect('groups', 'first task of ' .. name, first and first.id or '', g.head)
  expect('groups', 'line of ' .. name,
    not first and '' or limit and running >= limit and 'capped' or 'open', g.line)
  if meta.policy == 'borrow' then
    expect('groups', 'out of ' .. name, pack_amounts(books.out[name] or {}), g.out)
  end
  if first then
    expect('groups', 'class of ' .. name, first.class, g.signature)
    if g.tag and g.line ~= '' then
      books.ready[line_member(g)] = true
    end
    book_line(g)
  end
end

local function book_groups()
  for name, text in pairs(books.groups) do
    if #split(text, '|') == 6 + #GROUP_EXTRA and tonumber(split(text, '|')[4]) then
      book_group(name)
    else
      differs('groups', name, 6 + #GROUP_EXTRA .. ' values between |', text)
    end
  end
  local found = read_hash(K.signatures)
  for signature, line in pairs(books.lines) do
    expect('signatures', signature,
      int(line.open) .. '|' .. int(line.capped) .. '|' .. int(line.weight), found[signature])
  end
  for signature, text in pairs(found) do
    if not books.lines[signature] then
      differs('signatures', signature, 'absent', text)
    end
  end
end

local function book_functions(held)
  for name in pairs(held) do
    local part = split(name, '\0')
    if part[2] == 'function' and books.members[part[1]] then
      books.held[name] = true
      add(books.functions, part[3], 1)
    end
  end
  expect_counts('functions', books.functions, read_hash(K.functions))
  expect_names('held', books.held, held)
end

-- What takes the same time whatever the pool holds.
local function audit_totals()
  local leases, queued = redis.call('HLEN', K.leases), redis.call('ZCARD', K.fifo)
  local delayed, parked = redis.call('ZCARD', K.delayed), redis.call('ZCARD', K.parked)
  local tasks, functions = redis.call('HLEN', K.tasks), 0
  local served = redis.call('HVALS', K.functions)
  for i = 1, #served do
    functions = functions + tonumber(served[i])
  end
  expect('meta', 'running', leases, meta.running)
  expect('meta', 'queued', queued, meta.queued)
  expect('meta', 'delayed', delayed, meta.delayed)
  expect('meta', 'parked', parked, meta.parked)
  local unserved, suspects = redis.call('ZCARD', K.unserved), redis.call('ZCARD', K.suspect_tasks)
  expect('meta', 'unserved', unserved, meta.unserved)
  expect('meta', 'suspect_tasks', suspects, meta.suspect_tasks)
  expect('meta', 'suspects', redis.call('ZCARD', K.suspects), meta.suspects)
  expect('held', 'count', leases + functions, redis.call('ZCARD', K.held))
  expect('tasks', 'count', leases + queued + delayed + parked + unserved + suspects, tasks)
  expect('queue', 'count', tasks, redis.call('ZCARD', K.queue))
end

-- A claim stands by its holder and, once, by its resource; a run that is attended by a member has its driver.
local function book_claims(found, smallest)
  for name in pairs(found) do
    local kind, part = string.sub(name, 1, 1), split(string.sub(name, 2), '\0')
    if kind == '@' then
      local place = part[2] .. '\0' .. string.format('%016.0f', part[3]) .. '\0' .. part[1]
      books.claims[(found['~' .. place] and '~' or '=') .. place] = true
    elseif kind == '!' then
      books.attended[part[2]] = part[1]
      books.claims[name] = books.members[part[1]]
    else
      local claimed = tonumber(part[2])
      smallest[kind][part[1]] = math.min(smallest[kind][part[1]] or claimed, claimed)
      books.claims['@' .. part[3] .. '\0' .. part[1] .. '\0' .. int(claimed)] = true
    end
  end
end

-- A limit is the smallest claim that counts; where none does, the smallest that rests.
local function audit_limits()
  local found, smallest = read_names('claims'), { ['='] = {}, ['~'] = {} }
  book_claims(found, smallest)
  local limit_by_resource = smallest['~']
  for resource, claimed in pairs(smallest['=']) do
    limit_by_resource[resource] = claimed
  end
  expect_names('claims', books.claims, found)
  limit_by_resource.submission = limit_by_resource.submission or tonumber(UNCLAIMED_SUBMISSIONS)
  expect_counts('limits', limit_by_resource, limits)
end

local function expect_members(kind, names)
  for i = 1, #names do
    if not books.members[names[i]] then
      differs(kind, names[i], 'a member', 'none')
    end
  end
end

local function id_of(name)
  return (string.gsub(name, '[^%w._~-]', function(c) return string.format('%%%02X', string.byte(c)) end))
end

-- The pool's queue holds the names that tasks were given; told of are ids, which no terminal minds.
local function expect_queue()
  local ids, found = {}, {}
  for id in pairs(books.tasks) do
    ids[name_of(id)] = id
  end
  for name in pairs(read_names('queue')) do
    found[ids[name] or id_of(name)] = true
  end
  expect_names('queue', books.tasks, found)
end

local function audit_entries()
  books.members = read_names('members')
  books.tasks, books.groups = read_hash(K.tasks), read_hash(K.groups)
  book_leases()
  book_tasks()
  book_groups()
  audit_limits()
  expect_counts('ledger', books.ledger, ledger)
  book_functions(read_names('held'))
  expect_names('ready', books.ready, read_names('ready'))
  expect_queue()
  expect_names('idle_groups', books.groups, read_names('idle_groups'))
  expect_names('checks', books.members, read_names('checks'))
  expect_members('intervals', redis.call('HKEYS', K.intervals))
  expect_members('suspects', redis.call('ZRANGE', K.suspects, 0, -1))
  expect_members('idle', redis.call('ZRANGE', K.idle, 0, -1))
  expect_members('pushes', redis.call('HKEYS', K.pushes))
  expect_members('meta', SHARD.callers())
end

local function audit()
  load_meta()
  local entries = redis.call('HLEN', K.tasks) + redis.call('HLEN', K.groups)
    + redis.call('HLEN', K.leases) + redis.call('ZCARD', K.held) + redis.call('ZCARD', K.fifo)
    + redis.call('ZCARD', K.queue) + redis.call('ZCARD', K.members)
  audit_totals()
  if entries <= MAX_ENTRIES then
    audit_entries()
    audit_runs(books.attended, books.tasks)
  end
  table.sort(differences)
  return { entries = entries, is_complete = entries <= MAX_ENTRIES, differences = differences,
    difference_count = difference_count }
end
