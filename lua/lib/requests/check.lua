-- Whether the counts of a request shard's keys agree.
-- @include lib/requests/types
-- @include lib/shard/leases
-- @include lib/requests/entries
-- @include lib/requests/draws

-- The name of the key that lacks a waiter, or places it wrongly; nil where it stands as it should. `seen` counts
-- the waiters of each group so far.
function DAMAGE.misplaces(id, seen)
  local text = redis.call('HGET', K.waiters, id)
  if not text then
    return 'waiters'
  end
  local waiter = ENTRIES.parse_waiter(text)
  if waiter.deadline_us and tonumber(redis.call('ZSCORE', K.deadlines, id) or nil) ~= waiter.deadline_us then
    return 'deadlines'
  elseif not redis.call('ZSCORE', K.fifo, ENTRIES.fifo_member(waiter, id)) then
    return not redis.call('ZSCORE', K.aside, ASIDE.name(waiter.member, id)) and 'fifo' or nil
  end
  local g, line = GROUPS.of(waiter.group), 'line_' .. waiter.domain
  local tag = redis.call('ZSCORE', K[line], ENTRIES.line_member(g))
  seen[g.name] = (seen[g.name] or 0) + 1
  if g.waiting < seen[g.name] then
    return 'groups'
  end
  return (not tag or tonumber(tag) ~= g.tag) and line or nil
end

-- The ids of the caller's first eight leases or waiters.
function DAMAGE.first_ids(kind)
  local ids = redis.call('ZRANGE', K.held, '[' .. caller .. '\0' .. kind, '(' .. caller .. '\0' .. kind .. '\1', 'BYLEX',
    'LIMIT', 0, 8)
  for i = 1, #ids do
    ids[i] = split(ids[i], '\0')[3]
  end
  return ids
end

-- The name of a key that lacks or misplaces one of the caller's first leases or waiters; nil for none.
function DAMAGE.misplaced()
  local waiters, seen = caller and meta.waiters > 0 and DAMAGE.first_ids('waiter') or {}, {}
  for i = 1, #waiters do
    local name = DAMAGE.misplaces(waiters[i], seen)
    if name then
      return name
    end
  end
  local leases = caller and meta.max_hold_us > 0 and DAMAGE.first_ids('lease') or {}
  for i = 1, #leases do
    local text = LEASES.text(leases[i])
    if text and LEASES.parse(text).has_hold and not redis.call('ZSCORE', K.holds, leases[i]) then
      return 'holds'
    end
  end
  return nil
end

-- The name of the first key whose count contradicts the others, nil for none: O(log n).
function DAMAGE.miscounted(is_recapped)
  local leases, waiters = redis.call('HLEN', K.leases), redis.call('HLEN', K.waiters)
  local members, aliases = redis.call('ZCARD', K.members), redis.call('ZCARD', K.aliases)
  local in_flight = 0
  for i = 1, #DOMAINS do
    local d = STATE.domain(DOMAINS[i])
    in_flight = in_flight + d.in_flight
    if (d.waiters > 0) ~= (string.find(meta.lines, d.name, 1, true) ~= nil) and meta.suspects == 0 then
      return 'meta'
    end
    redis.call('ZCARD', K['line_' .. d.name]) -- raises where it is of another type
    if d.born and (d.current_limit < 1 or d.effective_max < 1) then
      return 'meta'
    end
  end
  local counts = { { 'meta', in_flight, meta.in_flight }, { 'leases', meta.in_flight, leases },
    { 'waiters', meta.waiters, waiters }, { 'held', leases + waiters + aliases, redis.call('ZCARD', K.held) },
    { 'fifo', waiters - redis.call('ZCARD', K.aside), redis.call('ZCARD', K.fifo) },
    { 'budgets', meta.budgets, redis.call('HLEN', K.budgets) }, { 'checks', members, redis.call('ZCARD', K.checks) },
    { 'intervals', members, redis.call('HLEN', K.intervals) },
    { 'suspects', meta.suspects, redis.call('ZCARD', K.suspects) },
    { 'groups', redis.call('ZCARD', K.idle_groups), redis.call('HLEN', K.groups) },
    { 'finished', meta.finished > 0, redis.call('ZCARD', K.finished) > 0 },
    { 'events', meta.sequence > 0, redis.call('XLEN', K.events) > 0 },
    { 'aliases', meta.static_cap > 0 and not is_recapped, aliases > 0 and not is_recapped } }
  for i = 1, #counts do
    if counts[i][2] ~= counts[i][3] then
      return counts[i][1]
    end
  end
  redis.call('ZCARD', K.deadlines) -- they raise where they are of another type
  redis.call('ZCARD', K.holds)
  redis.call('ZCARD', K.sharers)
  redis.call('ZCARD', K.awaited)
  return DAMAGE.misplaced()
end

-- Raise where a key is damaged in a way that no single operation would meet; `is_recapped` while the last
-- registration ends.
function DAMAGE.check(is_recapped)
  if meta.is_reindexed then
    return -- what this call worked out again is not written yet
  end
  LEASES.flush()
  if meta.recovering_us > 0 then -- members still state their part; leases are counted as they are stated
    if redis.call('HLEN', K.leases) ~= meta.in_flight then
      DAMAGE.raise('leases')
    end
    return
  end
  DRAWS.write()
  local name = DAMAGE.miscounted(is_recapped) or DAMAGE.unreadable(DAMAGE.looked_at)
  if name then
    DAMAGE.raise(name)
  end
end
