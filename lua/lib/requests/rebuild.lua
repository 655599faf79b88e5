-- The request shard's part of a rebuild: it works derived keys out of leases, waiters and registrations.
-- @include lib/shard/rebuild
-- @include lib/requests/check

-- A window that cannot be read is one that was never made.
function STATE.reset_windows()
  for i = 1, #DOMAINS do
    local d = STATE.domain(DOMAINS[i])
    if d.born and (d.current_limit < 1 or d.effective_max < 1) then
      redis.call('HDEL', K.meta, 'window_' .. d.name)
      d = RECORDS.parse(false, WINDOW_RECORD)
      d.name, d.born = DOMAINS[i], false
      domains[d.name], shard_records['window_' .. d.name] = d, d
    end
    d.in_flight, d.waiters = 0, 0
  end
  meta.in_flight, meta.waiters, meta.lines = 0, 0, ''
end

function STATE.reset_groups()
  local stored, first_tag = redis.call('HGETALL', K.groups), nil
  for i = 1, #stored, 2 do
    if DAMAGE.can_read.groups(stored[i + 1]) then
      local g = GROUPS.of(stored[i])
      g.waiting, g.indexed_us, g.dirty = 0, nil, true
      g.touched_us = g.touched_us or now_us
      first_tag = earlier(first_tag, g.tag)
    else
      redis.call('HDEL', K.groups, stored[i])
    end
  end
  meta.virtual_time = math.max(meta.virtual_time, first_tag or 0) -- it went with the record, or is later
end

-- When a lease is overdue; never as long as nobody has registered the longest hold again.
function STATE.write_hold(id, lease)
  local longest_us = meta.max_hold_us > 0 and meta.max_hold_us or WINDOW.longest_budget_us
  redis.call('ZADD', K.holds, int(tonumber(lease.acquired_us) + longest_us), id)
end

-- Add a stored lease to the counts.
function STATE.count_lease(id, lease)
  local d = STATE.domain(lease.domain)
  if not d.born then
    WINDOW.create(d, math.max(1, tonumber(lease.effective_max) or 1))
  end
  d.in_flight, meta.in_flight = d.in_flight + 1, meta.in_flight + 1
  redis.call('ZADD', K.held, 0, lease.member .. '\0lease\0' .. id)
  if lease.has_hold then
    EXPIRY.with_shard('holds')
    STATE.write_hold(id, lease)
  end
end

function STATE.reindex_leases(holders)
  local stored = redis.call('HGETALL', K.leases)
  for i = 1, #stored, 2 do
    if DAMAGE.can_read.leases(stored[i + 1]) and not LEASES.ended(stored[i]) then
      local lease = LEASES.parse(stored[i + 1])
      STATE.count_lease(stored[i], lease)
      holders[lease.member] = true
    else
      redis.call('HDEL', K.leases, stored[i])
    end
  end
end

function STATE.reindex_waiters(holders)
  local stored, waiters = redis.call('HGETALL', K.waiters), {}
  for i = 1, #stored, 2 do
    if DAMAGE.can_read.waiters(stored[i + 1]) then
      local waiter = ENTRIES.parse_waiter(stored[i + 1])
      waiter.id = stored[i]
      waiters[#waiters + 1] = waiter
    else
      redis.call('HDEL', K.waiters, stored[i])
    end
  end
  table.sort(waiters, function(a, b) return a.arrival < b.arrival end)
  for i = 1, #waiters do
    QUEUE.put_back(waiters[i].id, waiters[i])
    holders[waiters[i].member] = true
  end
end

function STATE.reindex_aliases(holders)
  local stored = redis.call('ZRANGE', K.aliases, 0, -1)
  for i = 1, #stored do
    local member, alias = string.match(stored[i], '^([^%z]+)%z([^%z]+)$')
    if alias then
      redis.call('ZADD', K.held, 0, ENTRIES.alias(member, alias))
      holders[member] = true
    else
      redis.call('ZREM', K.aliases, stored[i])
    end
  end
end

function STATE.reindex_budgets()
  meta.budgets = 0
  for i = 1, #BUDGETS.names do
    local text = redis.call('HGET', K.budgets, BUDGETS.names[i])
    local _, parts = string.gsub(text or '', '[%d.e+-]+', '')
    if parts == #BUDGETS.fields then
      meta.budgets = meta.budgets + 1
    elseif text then
      redis.call('HDEL', K.budgets, BUDGETS.names[i])
    end
  end
end

function STATE.reindex()
  local derived, types = { 'held', 'aside', 'line_chat', 'line_embedding', 'line_image', 'line_healthcheck', 'fifo',
    'idle_groups', 'deadlines', 'holds' }, DAMAGE.types()
  for i = 1, #derived do
    redis.call('UNLINK', K[derived[i]]) -- it is worked out of the other keys
  end
  for i = 1, #types do
    EXPIRY.with_shard(types[i][1])
  end
  local holders = {}
  STATE.reset_windows()
  STATE.reset_groups()
  STATE.reindex_budgets()
  local last = redis.call('ZRANGE', K.finished, -1, -1, 'WITHSCORES')[2]
  meta.finished = math.floor((tonumber(last) or 0) / 2)
  STATE.reindex_leases(holders)
  STATE.reindex_waiters(holders)
  STATE.reindex_aliases(holders)
  REBUILD.keep_members(holders)
end

-- End the recovery: the registrations made again count, and waiters get the free slots.
function STATE.open()
  CAPS.recompute()
  local holds = redis.call('ZRANGE', K.holds, 0, -1)
  for i = 1, #holds do
    STATE.write_hold(holds[i], LEASES.parse(LEASES.text(holds[i])))
  end
  for i = 1, #DOMAINS do
    local d = STATE.domain(DOMAINS[i])
    if d.born and meta.static_cap > 0 and WINDOW.effective_max(d.name) ~= d.effective_max then
      WINDOW.recap(d)
    end
  end
  QUEUE.grant()
end
