-- The books of a request shard beside those of every shard: its waiters, groups, windows and registrations.
-- @include lib/requests/types
-- @include lib/requests/window
-- @include lib/requests/entries
-- @include lib/shard/audit
AUDIT.hashes, AUDIT.sets = { 'leases', 'waiters', 'groups', 'meta' }, { 'members', 'held', 'fifo' }

-- Take a lease or waiter into the books; false if its text cannot be read.
function AUDIT.book_attempt(kind, id, attempt, text)
  local count = books.counts[attempt.domain]
  if not count or not attempt.group then
    AUDIT.differs(kind .. 's', id, 'a ' .. kind .. ' of a known domain', text)
    return false
  end
  count[kind] = count[kind] + 1
  AUDIT.book_held(attempt.member, kind, id)
  return true
end

function AUDIT.book_lease(id, lease, text)
  AUDIT.book_attempt('lease', id, lease, text)
  books.holds[id] = lease.has_hold or nil
end

-- A waiter of a suspect may stand aside; every other one stands in line.
function AUDIT.book_waiters()
  local aside = AUDIT.read('aside')
  for id, text in pairs(read_hash(K.waiters)) do
    local waiter = ENTRIES.parse_waiter(text)
    local is_booked = AUDIT.book_attempt('waiter', id, waiter, text)
    books.deadlines[id] = waiter.deadline_us
    local name = waiter.member and waiter.member .. '\0' .. id
    if is_booked and aside[name] and books.suspects[waiter.member] then
      books.aside[name] = true
    elseif is_booked then
      books.fifo[ENTRIES.fifo_member(waiter, id)] = true
      local waiting = books.waiting[waiter.group] or { all = 0 }
      waiting.all = waiting.all + 1
      waiting[waiter.domain] = true
      books.waiting[waiter.group] = waiting
    end
  end
end

function AUDIT.book_registrations()
  local smallest, override = 0, STATE.setting('override_cap', 0)
  for entry, cap in pairs(AUDIT.read('aliases')) do
    local part = split(entry, '\0')
    AUDIT.book_held(part[1], 'alias', tostring(part[2]), ENTRIES.alias(part[1], tostring(part[2])))
    smallest = smallest > 0 and math.min(smallest, cap) or cap
  end
  if override > 0 then
    smallest = math.min(smallest, override) -- which registers nothing by itself
  end
  AUDIT.expect_count('static_cap', smallest)
end

-- Each group's count of waiters, and its place in the line of each domain that it waits in.
function AUDIT.book_groups()
  for name, text in pairs(read_hash(K.groups)) do
    books.groups[name] = true
    books.idle_groups[name] = true
    if not string.find(text, '^[^|]+|[^|]*|%d+|%d+|%d+|%d+') then
      AUDIT.differs('groups', name, 'weight|tag|place|waiting|touched_us|indexed_us|got|got_before', text)
    else
      local g, waiting = GROUPS.of(name), books.waiting[name] or { all = 0 }
      AUDIT.expect('groups', 'waiting of ' .. name, waiting.all, g.waiting)
      for i = 1, #DOMAINS do
        if waiting[DOMAINS[i]] then
          books['line_' .. DOMAINS[i]][ENTRIES.line_member(g)] = g.tag or true
        end
      end
    end
  end
  for name in pairs(books.waiting) do
    if not books.groups[name] then
      AUDIT.differs('groups', name, 'present as it has waiters', 'absent')
    end
  end
end

function AUDIT.audit_domain(name)
  local d, count = STATE.domain(name), books.counts[name]
  AUDIT.expect('meta', 'in_flight of ' .. name, count.lease, d.in_flight)
  AUDIT.expect('meta', 'waiters of ' .. name, count.waiter, d.waiters)
  AUDIT.expect_names('line_' .. name, books['line_' .. name])
  if d.born and meta.static_cap > 0 then
    AUDIT.expect('meta', 'effective_max of ' .. name, WINDOW.effective_max(name), d.effective_max)
    if d.current_limit < 1 or d.current_limit > d.effective_max then
      AUDIT.differs('meta', 'current_limit of ' .. name, '1 to ' .. d.effective_max, d.current_limit)
    end
  end
end

-- The comparisons whose cost does not depend on the shard's size.
function AUDIT.totals()
  local leases, waiters = redis.call('HLEN', K.leases), redis.call('HLEN', K.waiters)
  AUDIT.expect_count('in_flight', leases)
  AUDIT.expect_count('waiters', waiters)
  local aside = redis.call('ZCARD', K.aside)
  AUDIT.expect('fifo', 'count', waiters - aside, redis.call('ZCARD', K.fifo))
  AUDIT.expect('held', 'count', leases + waiters + redis.call('ZCARD', K.aliases),
    redis.call('ZCARD', K.held))
  local in_flight, waiting = 0, 0
  for i = 1, #DOMAINS do
    in_flight = in_flight + STATE.domain(DOMAINS[i]).in_flight
    local waiters_here = STATE.domain(DOMAINS[i]).waiters
    waiting = waiting + waiters_here
    AUDIT.expect('meta', DOMAINS[i] .. ' in lines',
      waiters_here > 0 and redis.call('EXISTS', K['line_' .. DOMAINS[i]]) == 1, string.find(meta.lines, DOMAINS[i] .. ' ', 1, true) ~= nil)
  end
  AUDIT.expect('meta', 'in_flight over all domains', in_flight, meta.in_flight)
  AUDIT.expect('meta', 'waiters over all domains', waiting, meta.waiters)
end

function AUDIT.entries()
  books.fifo, books.deadlines, books.holds, books.aside = {}, {}, {}, {}
  books.waiting, books.groups, books.idle_groups, books.counts = {}, {}, {}, {}
  books.suspects = AUDIT.read('suspects')
  for i = 1, #DOMAINS do
    books.counts[DOMAINS[i]] = { lease = 0, waiter = 0 }
    books['line_' .. DOMAINS[i]] = {}
  end
  AUDIT.book_leases(AUDIT.book_lease)
  AUDIT.book_waiters()
  AUDIT.book_registrations()
  AUDIT.book_groups()
  for i = 1, #DOMAINS do
    AUDIT.audit_domain(DOMAINS[i])
  end
  for _, kind in ipairs({ 'held', 'fifo', 'deadlines', 'idle_groups', 'holds', 'aside' }) do
    AUDIT.expect_names(kind, books[kind])
  end
  local sharers = redis.call('ZRANGE', K.sharers, 0, -1)
  for i = 1, #sharers do
    sharers[i] = string.gsub(sharers[i], '^%z', '')
  end
  AUDIT.expect_members('sharers', sharers)
end
