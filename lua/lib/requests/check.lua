-- What the keys of a request shard must be, and whether their counts agree.
-- @include lib/shard/damage
-- @include lib/shard/leases
-- @include lib/requests/draws
function DAMAGE.types()
  return { { 'aliases', 'zset' }, { 'leases', 'hash' }, { 'members', 'zset' }, { 'checks', 'zset' },
    { 'intervals', 'hash' }, { 'suspects', 'zset' }, { 'awaited', 'zset' }, { 'held', 'zset' }, { 'waiters', 'hash' },
    { 'aside', 'zset' }, { 'line_chat', 'zset' }, { 'line_embedding', 'zset' }, { 'line_image', 'zset' },
    { 'line_healthcheck', 'zset' }, { 'fifo', 'zset' }, { 'groups', 'hash' }, { 'idle_groups', 'zset' },
    { 'deadlines', 'zset' }, { 'holds', 'zset' }, { 'budgets', 'hash' }, { 'sharers', 'zset' },
    { 'finished', 'zset' }, { 'events', 'stream' } }
end

-- The name of the first key whose count is not what the others say, nil for none: O(1).
function DAMAGE.miscounted(is_recapped)
  local leases, waiters = redis.call('HLEN', K.leases), redis.call('HLEN', K.waiters)
  local members, aliases = redis.call('ZCARD', K.members), redis.call('ZCARD', K.aliases)
  local in_flight = 0
  for i = 1, #DOMAINS do
    local d = STATE.domain(DOMAINS[i])
    in_flight = in_flight + d.in_flight
    if (d.waiters > 0) ~= (string.find(meta.lines, d.name, 1, true) ~= nil) and meta.suspects == 0 then
      return 'meta'
    elseif redis.call('ZCARD', K['line_' .. d.name]) == 0 and string.find(meta.lines, d.name, 1, true) then
      return 'line_' .. d.name
    elseif d.born and (d.current_limit < 1 or d.effective_max < 1) then
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
  local first = redis.call('ZRANGE', K.fifo, 0, 0)[1]
  local id = first and split(first, '\0')[4]
  local waiter = id and ENTRIES.parse_waiter(redis.call('HGET', K.waiters, id))
  if waiter and waiter.deadline_us and not redis.call('ZSCORE', K.deadlines, id) then
    return 'deadlines' -- how many there must be is not counted
  end
  redis.call('ZCARD', K.deadlines) -- they raise where they are of another type
  redis.call('ZCARD', K.holds)
  redis.call('ZCARD', K.sharers)
  return nil
end

-- Raise where a key is damaged in a way that no single operation would meet; `is_recapped` while the last
-- registration ends.
function DAMAGE.check(is_recapped)
  if meta.recovering_us > 0 then
    return
  end
  LEASES.flush()
  DRAWS.write()
  local name = DAMAGE.miscounted(is_recapped)
  if name then
    DAMAGE.raise(name)
  end
end
