-- The books of a request shard, worked out again from its leases, waiters and registrations, and
-- compared with what is stored. `what` is named by key, expected and found.
local MAX_DIFFERENCES = 100
local MAX_ENTRIES = 100000
local differences, difference_count = {}, 0
local books = { held = {}, fifo = {}, deadlines = {}, holds = {}, waiting = {}, groups = {},
  idle_groups = {}, aside = {} }

local function differs(kind, what, expected, found)
  difference_count = difference_count + 1
  if difference_count <= MAX_DIFFERENCES then
    differences[difference_count] = K[kind] .. ' ' .. string.gsub(what, '%z', ' ') .. ': expected '
      .. tostring(expected) .. ', found ' .. tostring(found)
  end
end

local function expect(kind, what, expected, found)
  if expected ~= found then
    differs(kind, what, expected, found)
  end
end

local function read_scores(key)
  local flat, scores = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES'), {}
  for i = 1, #flat, 2 do
    scores[flat[i]] = tonumber(flat[i + 1])
  end
  return scores
end

-- Names that should stand in a sorted set, each with its score or true for any score.
local function expect_names(kind, expected)
  local found = read_scores(K[kind])
  for name, score in pairs(expected) do
    if not found[name] then
      differs(kind, name, 'present', 'absent')
    elseif score ~= true and found[name] ~= score then
      differs(kind, 'score of ' .. name, real(score), real(found[name]))
    end
  end
  for name in pairs(found) do
    if expected[name] == nil then
      differs(kind, name, 'absent', 'present')
    end
  end
end

-- Names that may stand in a sorted set or a hash, as far as `allowed` holds them.
local function expect_only(kind, names, allowed, why)
  for i = 1, #names do
    if not allowed[names[i]] then
      differs(kind, names[i], why, 'none')
    end
  end
end

-- Take a lease or waiter into the books; false if its text cannot be read.
local function book_attempt(kind, id, attempt, text)
  local count = books.counts[attempt.domain]
  if not count or not attempt.group then
    differs(kind .. 's', id, 'a ' .. kind .. ' of a known domain', text)
    return false
  end
  count[kind] = count[kind] + 1
  books.held[attempt.member .. '\0' .. kind .. '\0' .. id] = true
  if not books.members[attempt.member] then
    differs('members', attempt.member .. ' of ' .. kind .. ' ' .. id, 'present', 'absent')
  end
  return true
end

local function book_leases()
  local finished = read_scores(K.finished)
  for id, text in pairs(books.leases) do
    local lease = parse_lease(text)
    book_attempt('lease', id, lease, text)
    books.holds[id] = lease.has_hold or nil
    if finished[id] then
      differs('finished', id, 'absent while its lease is live', 'present')
    end
  end
end

-- A waiter of a suspect may stand aside; every other one stands in line.
local function book_waiters()
  local aside = read_scores(K.aside)
  for id, text in pairs(books.waiters) do
    local waiter = parse_waiter(text)
    local is_booked = book_attempt('waiter', id, waiter, text)
    books.deadlines[id] = waiter.deadline_us
    local name = waiter.member and waiter.member .. '\0' .. id
    if is_booked and aside[name] and books.suspects[waiter.member] then
      books.aside[name] = true
    elseif is_booked then
      books.fifo[fifo_member(waiter, id)] = true
      local waiting = books.waiting[waiter.group] or { all = 0 }
      waiting.all = waiting.all + 1
      waiting[waiter.domain] = true
      books.waiting[waiter.group] = waiting
    end
  end
end

local function book_registrations()
  local smallest, override = 0, setting('override_cap', 0)
  for entry, cap in pairs(read_scores(K.aliases)) do
    local part = split(entry, '\0')
    books.held[alias_entry(part[1], tostring(part[2]))] = true
    if not books.members[part[1]] then
      differs('members', part[1] .. ' of alias ' .. tostring(part[2]), 'present', 'absent')
    end
    smallest = smallest > 0 and math.min(smallest, cap) or cap
  end
  if override > 0 then
    smallest = math.min(smallest, override) -- which registers nothing by itself
  end
  expect('meta', 'static_cap', smallest, meta.static_cap)
end

-- Each group's count of waiters, and its place in the line of each domain that it waits in.
local function book_groups()
  for name, text in pairs(read_hash(K.groups)) do
    books.groups[name] = true
    books.idle_groups[name] = true
    if not string.find(text, '^[^|]+|[^|]*|%d+|%d+|%d+|%d+') then
      differs('groups', name, 'weight|tag|place|waiting|touched_us|indexed_us', text)
    else
      local g, waiting = group(name), books.waiting[name] or { all = 0 }
      expect('groups', 'waiting of ' .. name, waiting.all, g.waiting)
      for i = 1, #DOMAINS do
        if waiting[DOMAINS[i]] then
          books['line_' .. DOMAINS[i]][line_member(g)] = g.tag or true
        end
      end
    end
  end
  for name in pairs(books.waiting) do
    if not books.groups[name] then
      differs('groups', name, 'present as it has waiters', 'absent')
    end
  end
end

local function audit_domain(name)
  local d, count = domain(name), books.counts[name]
  local kind = 'meta'
  expect(kind, 'in_flight of ' .. name, count.lease, d.in_flight)
  expect(kind, 'waiters of ' .. name, count.waiter, d.waiters)
  expect_names('line_' .. name, books['line_' .. name])
  if d.born and meta.static_cap > 0 then
    expect(kind, 'effective_max of ' .. name, WINDOW.effective_max(name), d.effective_max)
    if d.current_limit < 1 or d.current_limit > d.effective_max then
      differs(kind, 'current_limit of ' .. name, '1 to ' .. d.effective_max, d.current_limit)
    end
  end
end

-- What takes the same time whatever the shard holds.
local function audit_totals()
  local leases, waiters = redis.call('HLEN', K.leases), redis.call('HLEN', K.waiters)
  expect('meta', 'in_flight', leases, meta.in_flight)
  expect('meta', 'waiters', waiters, meta.waiters)
  local aside = redis.call('ZCARD', K.aside)
  expect('fifo', 'count', waiters - aside, redis.call('ZCARD', K.fifo))
  expect('held', 'count', leases + waiters + redis.call('ZCARD', K.aliases),
    redis.call('ZCARD', K.held))
  expect('meta', 'suspects', redis.call('ZCARD', K.suspects), meta.suspects)
  local in_flight, waiting = 0, 0
  for i = 1, #DOMAINS do
    in_flight = in_flight + domain(DOMAINS[i]).in_flight
    local waiters_here = domain(DOMAINS[i]).waiters
    waiting = waiting + waiters_here
    expect('meta', DOMAINS[i] .. ' in lines',
      waiters_here > 0 and redis.call('EXISTS', K['line_' .. DOMAINS[i]]) == 1, string.find(meta.lines, DOMAINS[i] .. ' ', 1, true) ~= nil)
  end
  expect('meta', 'in_flight over all domains', in_flight, meta.in_flight)
  expect('meta', 'waiters over all domains', waiting, meta.waiters)
end

-- Each member is looked at when its check is due; what is kept beside is kept of members alone.
local function expect_members()
  local checks = {}
  for member in pairs(books.members) do
    checks[member] = true
  end
  expect_names('checks', checks)
  expect_only('intervals', redis.call('HKEYS', K.intervals), books.members, 'a member')
  expect_only('suspects', redis.call('ZRANGE', K.suspects, 0, -1), books.members, 'a member')
  expect_only('meta', SHARD.callers(), books.members, 'a member')
  local sharers = redis.call('ZRANGE', K.sharers, 0, -1)
  for i = 1, #sharers do
    sharers[i] = string.gsub(sharers[i], '^%z', '')
  end
  expect_only('sharers', sharers, books.members, 'a member')
end

local function audit_entries()
  books.members = read_scores(K.members)
  books.leases, books.waiters = read_hash(K.leases), read_hash(K.waiters)
  books.suspects = read_scores(K.suspects)
  books.counts = {}
  for i = 1, #DOMAINS do
    books.counts[DOMAINS[i]] = { lease = 0, waiter = 0 }
    books['line_' .. DOMAINS[i]] = {}
  end
  book_leases()
  book_waiters()
  book_registrations()
  book_groups()
  for i = 1, #DOMAINS do
    audit_domain(DOMAINS[i])
  end
  expect_names('held', books.held)
  expect_names('fifo', books.fifo)
  expect_names('deadlines', books.deadlines)
  expect_names('idle_groups', books.idle_groups)
  expect_names('holds', books.holds)
  expect_names('aside', books.aside)
  expect_members()
end

local function count_entries()
  local count = 0
  local hashes, sets = { 'leases', 'waiters', 'groups', 'meta' }, { 'members', 'held', 'fifo' }
  for i = 1, #hashes do
    count = count + redis.call('HLEN', K[hashes[i]])
  end
  for i = 1, #sets do
    count = count + redis.call('ZCARD', K[sets[i]])
  end
  return count
end

local function audit()
  load_meta()
  local entries = count_entries()
  audit_totals()
  if entries <= MAX_ENTRIES then
    audit_entries()
  end
  table.sort(differences)
  return { entries = entries, is_complete = entries <= MAX_ENTRIES, differences = differences,
    difference_count = difference_count }
end

-- The first line says `ok` or how many differences follow.
local function audit_lines(found)
  local lines = { 'ok' }
  if found.difference_count > 0 then
    lines = { found.difference_count .. ' differences' }
  end
  if not found.is_complete then
    lines[1] = lines[1] .. ' in the totals; single entries were not compared: ' .. found.entries
      .. ' are more than ' .. MAX_ENTRIES
  end
  for i = 1, #found.differences do
    lines[#lines + 1] = found.differences[i]
  end
  if found.difference_count > #found.differences then
    lines[#lines + 1] = '... and ' .. (found.difference_count - #found.differences) .. ' more'
  end
  return lines
end
