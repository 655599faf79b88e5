-- The books of a task pool, worked out again from its tasks and leases, and compared with what is
-- stored.
local MAX_ENTRIES = 100000
local books = { ledger = {}, held = {}, fifo = {}, delayed = {}, leased = {}, waiting = {},
  running = {}, first = {}, ready = {}, signatures = {} }
local STATES = { ready = true, delayed = true, running = true }

local function add(counts, name, amount)
  counts[name] = (counts[name] or 0) + amount
end

local function book_leases()
  local finished = read_names('finished')
  for id, text in pairs(read_hash(K.leases)) do
    local lease = parse_lease(text)
    if not lease.acquired_us then
      differs('leases', id, 'member|task id|signature|acquired_us', text)
    else
      books.held[lease.member .. '\0lease\0' .. id] = true
      if books.leased[lease.task_id] then
        differs('leases', lease.task_id, 'one lease', 'another')
      end
      books.leased[lease.task_id] = lease
      for resource, amount in pairs(amounts_of(lease.signature).amounts) do
        add(books.ledger, resource, amount)
      end
      if not books.members[lease.member] then
        differs('members', lease.member .. ' of lease ' .. id, 'present', 'absent')
      end
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
    books.first[task.group] = { member = member, signature = task.signature }
  end
end

local function book_tasks()
  for id, text in pairs(books.tasks) do
    local task = parse_task(text)
    if not task.number or not STATES[task.state] then
      differs('tasks', id, 'state|group|arrival|signature|run|column|number', text)
    elseif task.state == 'ready' then
      book_waiting(id, task)
    elseif task.state == 'delayed' then
      books.delayed[id] = true
    else
      add(books.running, task.group, 1)
    end
    local lease = books.leased[id]
    expect('tasks', 'lease of ' .. id, task.state == 'running', lease ~= nil)
    if lease then
      expect('leases', 'signature of ' .. id, task.signature, lease.signature)
    end
    if task.group and not books.groups[task.group] then
      differs('groups', task.group, 'present as it has tasks', 'absent')
    end
  end
  for id in pairs(books.leased) do
    if not books.tasks[id] then
      differs('tasks', id, 'present as it has a lease', 'absent')
    end
  end
end

-- Each group's counts, and its place in line: that of its first task's signature, by its limit.
local function book_groups()
  for name, text in pairs(books.groups) do
    if not string.find(text, '^[^|]+|[^|]*|%d+|%d+|%d+|%d+|[^|]*|[^|]*|[^|]*|[^|]*$') then
      differs('groups', name, 'ten values between |', text)
    else
      local g, first = group(name), books.first[name]
      local running, limit = tonumber(g.running) or 0, tonumber(g.admitted_limit)
      expect('groups', 'waiting of ' .. name, books.waiting[name] or 0, g.waiting)
      expect('groups', 'running of ' .. name, books.running[name] or 0, running)
      expect('groups', 'line of ' .. name,
        not first and '' or limit and running >= limit and 'capped' or 'open', g.line)
      if first then
        expect('groups', 'signature of ' .. name, first.signature, g.signature)
        if g.tag and g.line ~= '' then
          books.ready[line_member(g)] = true
        end
        add(books.signatures, first.signature, 1)
      end
    end
  end
end

-- What takes the same time whatever the pool holds.
local function audit_totals()
  local leases, queued = redis.call('HLEN', K.leases), redis.call('ZCARD', K.fifo)
  local delayed, tasks = redis.call('ZCARD', K.delayed), redis.call('HLEN', K.tasks)
  expect('meta', 'running', leases, meta.running)
  expect('meta', 'queued', queued, meta.queued)
  expect('meta', 'delayed', delayed, meta.delayed)
  expect('held', 'count', leases, redis.call('ZCARD', K.held))
  expect('tasks', 'count', leases + queued + delayed, tasks)
  expect('queue', 'count', tasks, redis.call('ZCARD', K.queue))
end

-- A limit is the smallest that is claimed.
local function audit_limits()
  local smallest = {}
  for name, value in pairs(read_hash(K.claims)) do
    local resource, claimed = split(name, '\0')[1], tonumber(value)
    smallest[resource] = math.min(smallest[resource] or claimed, claimed)
  end
  expect_counts('limits', smallest, limits)
end

local function expect_members(kind, names)
  for i = 1, #names do
    if not books.members[names[i]] then
      differs(kind, names[i], 'a member', 'none')
    end
  end
end

local function audit_entries()
  books.members = read_names('members')
  books.tasks, books.groups = read_hash(K.tasks), read_hash(K.groups)
  book_leases()
  book_tasks()
  book_groups()
  audit_limits()
  expect_counts('ledger', books.ledger, ledger)
  expect_counts('signatures', books.signatures, read_hash(K.signatures))
  expect_names('held', books.held, read_names('held'))
  expect_names('fifo', books.fifo, read_names('fifo'))
  expect_names('delayed', books.delayed, read_names('delayed'))
  expect_names('ready', books.ready, read_names('ready'))
  expect_names('queue', books.tasks, read_names('queue'))
  expect_names('idle_groups', books.groups, read_names('idle_groups'))
  expect_members('idle', redis.call('ZRANGE', K.idle, 0, -1))
  expect_members('batches', redis.call('HKEYS', K.batches))
end

local function audit()
  load_meta()
  local entries = redis.call('HLEN', K.tasks) + redis.call('HLEN', K.groups)
    + redis.call('HLEN', K.leases) + redis.call('ZCARD', K.held) + redis.call('ZCARD', K.fifo)
    + redis.call('ZCARD', K.queue) + redis.call('ZCARD', K.members)
  audit_totals()
  if entries <= MAX_ENTRIES then
    audit_entries()
    audit_runs()
  end
  table.sort(differences)
  return { entries = entries, is_complete = entries <= MAX_ENTRIES, differences = differences,
    difference_count = difference_count }
end
