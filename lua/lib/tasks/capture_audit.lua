-- The books of a task pool beside those of every shard: its tasks, groups, lines, ledger and claims.
-- @include lib/tasks/types
-- @include lib/tasks/lost
-- @include lib/tasks/capture_runs
AUDIT.hashes, AUDIT.sets = { 'tasks', 'groups', 'leases' }, { 'held', 'fifo', 'queue', 'members' }

function AUDIT.add(counts, name, amount)
  counts[name] = (counts[name] or 0) + amount
end

function AUDIT.book_lease(id, lease, text)
  if not lease.acquired_us then
    AUDIT.differs('leases', id, 'six values between |', text)
    return
  end
  AUDIT.book_held(lease.member, 'lease', id)
  if books.leased[lease.task_id] then
    AUDIT.differs('leases', lease.task_id, 'one lease', 'another')
  end
  books.leased[lease.task_id], lease.id = lease, id
  AUDIT.add(books.running, lease.group, 1)
  local out = books.out[lease.group] or {}
  books.out[lease.group] = out
  for resource, amount in pairs(LEDGER.amounts_of(lease.signature).amounts) do
    AUDIT.add(books.ledger, resource, amount)
    AUDIT.add(out, resource, amount)
  end
end

function AUDIT.book_waiting(id, task)
  local member = QUEUE.fifo_member(id, task)
  books.fifo[member] = true
  AUDIT.add(books.waiting, task.group, 1)
  local first = books.first[task.group]
  if not first or member < first.member then
    books.first[task.group] = { member = member, id = id, class = CLASSES.of(task) }
  end
end

-- A task is in one place: ready, delayed, parked or on a lease.
function AUDIT.book_task(id, task, found)
  local lease = books.leased[id]
  local places, beside = (lease and 1 or 0) + (found.fifo[QUEUE.fifo_member(id, task)] and 1 or 0), nil
  local entries = QUEUE.beside(id, task)
  for kind, entry in pairs(entries) do
    if found[kind][entry] then
      places, beside = places + 1, kind
    end
  end
  AUDIT.expect('tasks', 'places of ' .. id, 1, places)
  if task.losses > 0 then
    books.lost[id] = task.losses
    books.suspect_leases[id] = lease and lease.id
  end
  if lease then
    AUDIT.expect('leases', 'signature of ' .. id, task.signature, lease.signature)
    AUDIT.expect('leases', 'group of ' .. id, task.group, lease.group)
  elseif beside then
    books[beside][entries[beside]] = true
    AUDIT.add(books.away, task.group, 1)
  else
    AUDIT.book_waiting(id, task)
  end
  if not books.groups[task.group] then
    AUDIT.differs('groups', task.group, 'present as it has tasks', 'absent')
  end
end

-- Compare lost tasks with the members that lost them and those that run them.
function AUDIT.audit_losses()
  local losses, watched = read_hash(K.losses), {}
  for id in pairs(losses) do
    if not books.lost[id] then
      AUDIT.differs('losses', id, 'absent', 'present')
    end
  end
  for id, times in pairs(books.lost) do
    AUDIT.expect('losses', 'members of ' .. id, times, losses[id] and #split(losses[id], ',') or 0)
  end
  for member, text in pairs(read_hash(K.watched)) do
    watched[string.match(text, '^%a+ (.*)$') or ''] = member
  end
  for id, lease_id in pairs(books.suspect_leases) do
    AUDIT.expect('watched', 'member of ' .. lease_id, books.leased[id].member, watched[lease_id])
    watched[lease_id] = nil
  end
  for lease_id in pairs(watched) do
    AUDIT.differs('watched', lease_id, 'absent', 'present')
  end
  AUDIT.expect_count('lost', redis.call('HLEN', K.losses))
end

function AUDIT.book_tasks()
  local found = {}
  for _, kind in ipairs({ 'fifo', 'delayed', 'parked', 'unserved', 'suspect_tasks' }) do
    found[kind] = AUDIT.read(kind)
  end
  for id, text in pairs(books.tasks) do
    local task = TASKS.parse(text)
    if task.number then
      AUDIT.book_task(id, task, found)
    else
      AUDIT.differs('tasks', id, 'twelve values between |', text)
    end
  end
  AUDIT.audit_losses()
  for id in pairs(books.leased) do
    if not books.tasks[id] then
      AUDIT.differs('tasks', id, 'present as it has a lease', 'absent')
    end
  end
  for kind, names in pairs(found) do
    AUDIT.expect_names(kind, books[kind], names)
  end
end

function AUDIT.book_line(g)
  local line = books.lines[g.signature] or { open = 0, capped = 0, weight = 0 }
  books.lines[g.signature] = line
  if line[g.line] then
    line[g.line] = line[g.line] + 1
    line.weight = line.weight + LINES.millionths(g.weight)
  end
end

-- Each group's counts, and its place in line: that of its first task's signature, by its limit.
function AUDIT.book_group(name)
  local g, first = GROUPS.of(name), books.first[name]
  local running, limit = tonumber(g.running) or 0, tonumber(g.admitted_limit)
  AUDIT.expect('groups', 'waiting of ' .. name, books.waiting[name] or 0, g.waiting)
  AUDIT.expect('groups', 'running of ' .. name, books.running[name] or 0, running)
  AUDIT.expect('groups', 'away of ' .. name, books.away[name] or 0, tonumber(g.away) or 0)
  AUDIT.expect('groups', 'first task of ' .. name, first and first.id or '', g.head)
  AUDIT.expect('groups', 'line of ' .. name,
    not first and '' or limit and running >= limit and 'capped' or 'open', g.line)
  if meta.policy == 'borrow' then
    AUDIT.expect('groups', 'out of ' .. name, LEDGER.pack_amounts(books.out[name] or {}), g.out)
  end
  if first then
    AUDIT.expect('groups', 'class of ' .. name, first.class, g.signature)
    if g.tag and g.line ~= '' then
      books.ready[LINES.member(g)] = true
    end
    AUDIT.book_line(g)
  end
end

function AUDIT.book_groups()
  for name, text in pairs(books.groups) do
    if #split(text, '|') >= 6 + #GROUPS.extra and tonumber(split(text, '|')[4]) then
      AUDIT.book_group(name)
    else
      AUDIT.differs('groups', name, 6 + #GROUPS.extra .. ' values between |', text)
    end
  end
  local found = read_hash(K.signatures)
  for signature, line in pairs(books.lines) do
    AUDIT.expect('signatures', signature,
      int(line.open) .. '|' .. int(line.capped) .. '|' .. int(line.weight), found[signature])
  end
  for signature, text in pairs(found) do
    if not books.lines[signature] then
      AUDIT.differs('signatures', signature, 'absent', text)
    end
  end
end

function AUDIT.book_functions(held)
  for name in pairs(held) do
    local part = split(name, '\0')
    if part[2] == 'function' and books.members[part[1]] then
      books.held[name] = true
      AUDIT.add(books.functions, part[3], 1)
    end
  end
  AUDIT.expect_counts('functions', books.functions, read_hash(K.functions))
  AUDIT.expect_names('held', books.held, held)
end

-- The comparisons whose cost does not depend on the pool's size.
function AUDIT.totals()
  local leases, queued = redis.call('HLEN', K.leases), redis.call('ZCARD', K.fifo)
  local delayed, parked = redis.call('ZCARD', K.delayed), redis.call('ZCARD', K.parked)
  local tasks, functions = redis.call('HLEN', K.tasks), 0
  local served = redis.call('HVALS', K.functions)
  for i = 1, #served do
    functions = functions + tonumber(served[i])
  end
  AUDIT.expect_count('running', leases)
  AUDIT.expect_count('queued', queued)
  AUDIT.expect_count('delayed', delayed)
  AUDIT.expect_count('parked', parked)
  local unserved, suspects = redis.call('ZCARD', K.unserved), redis.call('ZCARD', K.suspect_tasks)
  AUDIT.expect_count('unserved', unserved)
  AUDIT.expect_count('suspect_tasks', suspects)
  AUDIT.expect('held', 'count', leases + functions, redis.call('ZCARD', K.held))
  AUDIT.expect('tasks', 'count', leases + queued + delayed + parked + unserved + suspects, tasks)
  AUDIT.expect('queue', 'count', tasks, redis.call('ZCARD', K.queue))
end

-- A claim stands by its holder and, once, by its resource; a driven run names its driver.
function AUDIT.book_claims(found, smallest)
  for name in pairs(found) do
    local kind, part = string.sub(name, 1, 1), split(string.sub(name, 2), '\0')
    if kind == '@' then
      local place = part[2] .. '\0' .. string.format('%016.0f', part[3]) .. '\0' .. part[1]
      books.claims[(found['~' .. place] and '~' or '=') .. place] = true
    elseif kind == '!' then
      books.attended[part[2]] = part[1]
      books.claims[name] = books.members[part[1]] and true
    else
      local claimed = tonumber(part[2])
      smallest[kind][part[1]] = math.min(smallest[kind][part[1]] or claimed, claimed)
      books.claims['@' .. part[3] .. '\0' .. part[1] .. '\0' .. int(claimed)] = true
    end
  end
end

-- A limit is the smallest claim that counts; where none does, the smallest that rests.
function AUDIT.audit_limits()
  local found, smallest = AUDIT.read('claims'), { ['='] = {}, ['~'] = {} }
  AUDIT.book_claims(found, smallest)
  local limit_by_resource = smallest['~']
  for resource, claimed in pairs(smallest['=']) do
    limit_by_resource[resource] = claimed
  end
  AUDIT.expect_names('claims', books.claims, found)
  limit_by_resource.submission = limit_by_resource.submission or tonumber(LEDGER.unclaimed_submissions)
  AUDIT.expect_counts('limits', limit_by_resource, limits)
end

function AUDIT.id_of(name)
  return (string.gsub(name, '[^%w._~-]', function(c) return string.format('%%%02X', string.byte(c)) end))
end

-- The pool's queue holds the names that tasks were given; told of are ids, which no terminal minds.
function AUDIT.expect_queue()
  local ids, found = {}, {}
  for id in pairs(books.tasks) do
    ids[TASKS.name_of(id)] = id
  end
  for name in pairs(AUDIT.read('queue')) do
    found[ids[name] or AUDIT.id_of(name)] = true
  end
  AUDIT.expect_names('queue', books.tasks, found)
end

function AUDIT.entries()
  for _, name in ipairs({ 'ledger', 'claims', 'attended', 'lost', 'suspect_leases', 'fifo', 'delayed', 'parked',
    'unserved', 'suspect_tasks', 'leased', 'waiting', 'running', 'away', 'first', 'ready', 'lines', 'out', 'functions' }) do
    books[name] = {}
  end
  books.tasks, books.groups = read_hash(K.tasks), read_hash(K.groups)
  AUDIT.book_leases(AUDIT.book_lease)
  AUDIT.book_tasks()
  AUDIT.book_groups()
  AUDIT.audit_limits()
  AUDIT.expect_counts('ledger', books.ledger, ledger)
  AUDIT.book_functions(AUDIT.read('held'))
  AUDIT.expect_names('ready', books.ready)
  AUDIT.expect_queue()
  AUDIT.expect_names('idle_groups', books.groups)
  AUDIT.expect_members('idle', redis.call('ZRANGE', K.idle, 0, -1))
  AUDIT.expect_members('pushes', redis.call('HKEYS', K.pushes))
  AUDIT.audit_runs(books.attended, books.tasks)
end
