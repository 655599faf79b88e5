-- One look at a request shard as a table of plain values: what is stored, with the ramp and the
-- clock applied in memory only. Each list has at most `rows` rows and comes with the count of all;
-- times are text, as cjson keeps 14 digits only.
-- @include lib/shard/groups
-- @include lib/shard/identity
-- @include lib/requests/budgets
-- @include lib/requests/entries
-- @include lib/requests/tokens
-- @include lib/requests/window
local CAPTURE = { overdue_members = 100, overdue_leases = 1000 } -- that are looked at

-- The number of names of a sorted set that begin with `prefix` and a NUL.
function CAPTURE.count_under(key, prefix)
  return redis.call('ZLEXCOUNT', key, '[' .. prefix .. '\0', '(' .. prefix .. '\1')
end

function CAPTURE.first_rows(key, rows)
  return redis.call('ZRANGE', key, '-inf', '+inf', 'BYSCORE', 'LIMIT', 0, rows, 'WITHSCORES')
end

-- Leases of members whose heartbeat is overdue: the next operation on the shard ends them.
function CAPTURE.overdue()
  local members = redis.call('ZRANGE', K.members, '-inf', int(now_us), 'BYSCORE', 'LIMIT', 0,
    CAPTURE.overdue_members)
  local overdue, left = { leases = 0, by_domain = {} }, CAPTURE.overdue_leases
  for i = 1, #members do
    local prefix = members[i] .. '\0lease'
    overdue.leases = overdue.leases + CAPTURE.count_under(K.held, prefix)
    local items = redis.call('ZRANGE', K.held, '[' .. prefix .. '\0', '(' .. prefix .. '\1', 'BYLEX',
      'LIMIT', 0, left)
    for j = 1, #items do
      items[j] = split(items[j], '\0')[3]
    end
    local leases = #items > 0 and redis.call('HMGET', K.leases, unpack(items)) or {}
    for j = 1, #leases do
      local name = leases[j] and LEASES.parse(leases[j]).domain or ''
      overdue.by_domain[name] = (overdue.by_domain[name] or 0) + 1
    end
    left = left - #items
  end
  return overdue
end

function CAPTURE.groups(domain_name, rows)
  local line, list = CAPTURE.first_rows(K['line_' .. domain_name], rows), {}
  for i = 1, #line, 2 do
    local name = string.sub(line[i], 18)
    list[#list + 1] = { group = name, weight = GROUPS.of(name).weight, tag = tonumber(line[i + 1]),
      waiting = CAPTURE.count_under(K.fifo, domain_name .. '\0' .. name) }
  end
  return list
end

function CAPTURE.domain(name, rows, overdue)
  local d = STATE.domain(name)
  local is_used = d.born
  if not is_used and meta.static_cap > 0 then
    WINDOW.create(d, WINDOW.effective_max(name)) -- in memory only: what the first acquire would find
  end
  local outcomes, granted = {}, d.in_flight -- each lease is live or ended with one outcome
  for i = 1, #STATE.outcomes do
    outcomes[STATE.outcomes[i]] = d[STATE.outcomes[i]]
    granted = granted + outcomes[STATE.outcomes[i]]
  end
  return {
    is_used = is_used,
    effective_max = d.effective_max,
    current_limit = d.current_limit,
    in_flight_count = d.in_flight,
    overdue_leases = overdue.by_domain[name] or 0,
    waiters = d.waiters,
    blocked_until_us = int(d.blocked_until_us),
    cooldown_us = int(math.max(0, d.blocked_until_us - now_us)),
    rate_limit_ceiling = d.rate_limit_ceiling,
    consecutive_rate_limits = d.consecutive_rate_limits,
    algorithm = STATE.rule_name(),
    ceiling = d.born and WINDOW.ceiling(d) or 0,
    is_trying = d.step > 0 and STATE.rule_name() == 'steady',
    successes_needed = d.born and WINDOW.rule().needed(d) or 0,
    quiet_until_us = int(d.quiet_until_us),
    quiet_us = int(math.max(0, d.quiet_until_us - now_us)),
    outlook = d.born and WINDOW.outlook(d) or '',
    minute = MINUTE.capture(d),
    last_outcome = d.last_outcome,
    quota_name = d.quota_until_us > now_us and REFILL.name(d.quota_name) or '',
    token_factor = TOKENS.factor(d),
    success_streak = d.success_streak,
    cuts = d.cuts,
    granted = granted,
    outcomes = outcomes,
    waiting_group_count = redis.call('ZCARD', K['line_' .. name]),
    waiting_groups = CAPTURE.groups(name, rows),
  }
end

-- Members by expiry, so those overdue come first.
function CAPTURE.members(rows)
  local stored, list = CAPTURE.first_rows(K.members, rows), {}
  for i = 1, #stored, 2 do
    list[#list + 1] = { member_id = stored[i], process = IDENTITY.of(stored[i]),
      expires_in_us = int(tonumber(stored[i + 1]) - now_us),
      lease_count = CAPTURE.count_under(K.held, stored[i] .. '\0lease'),
      waiters = CAPTURE.count_under(K.held, stored[i] .. '\0waiter') }
  end
  return list
end

-- The registrations: member and alias, the smallest caps first.
function CAPTURE.registrations(rows)
  local stored, list = CAPTURE.first_rows(K.aliases, rows), {}
  for i = 1, #stored, 2 do
    local part = split(stored[i], '\0')
    list[#list + 1] = { member_id = part[1], alias = part[2], cap = tonumber(stored[i + 1]) }
  end
  return list
end

function CAPTURE.budgets()
  local list, found = {}, BUDGETS.all()
  for number = 1, #BUDGETS.names do
    local bucket = found[number]
    if bucket then
      list[#list + 1] = { budget = BUDGETS.names[number], limit = BUDGETS.limit_of(bucket),
        burst = BUDGETS.burst_of(bucket), level = real(BUDGETS.level_now(bucket)), registered = bucket.registered,
        learned = bucket.learned }
    end
  end
  return list
end

function CAPTURE.shard(rows)
  STATE.load()
  local overdue, by_name = CAPTURE.overdue(), {}
  for i = 1, #DOMAINS do
    by_name[DOMAINS[i]] = CAPTURE.domain(DOMAINS[i], rows, overdue)
  end
  return {
    captured_us = int(now_us),
    sequence = meta.sequence,
    generation = meta.generation,
    virtual_time = meta.virtual_time,
    static_cap = meta.static_cap,
    override_cap = STATE.setting('override_cap', 0),
    in_flight = meta.in_flight,
    leases = redis.call('HLEN', K.leases),
    waiters = meta.waiters,
    overdue_leases = overdue.leases,
    overdue_members = redis.call('ZCOUNT', K.members, '-inf', int(now_us)),
    overdue_holds = meta.max_hold_us > 0 and redis.call('ZCOUNT', K.holds, '-inf', int(now_us)) or 0,
    member_count = redis.call('ZCARD', K.members),
    members = CAPTURE.members(rows),
    registration_count = redis.call('ZCARD', K.aliases),
    registrations = CAPTURE.registrations(rows),
    budgets = CAPTURE.budgets(),
    token_fair = meta.token_fair > 0,
    domains = by_name,
  }
end
