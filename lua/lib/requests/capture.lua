-- One look at a request shard as a table of plain values: what is stored, with the ramp and the
-- clock applied in memory only. Each list has at most `rows` rows and comes with the count of all;
-- times are text, as cjson keeps 14 digits only.
local OVERDUE_MEMBERS_LOOKED_AT = 100
local OVERDUE_LEASES_LOOKED_AT = 1000
local OUTCOMES = { 'success', 'rate_limited', 'provider_failure', 'provider_timeout', 'local_cancelled',
  'local_timeout', 'unexpected_exception', 'member_lost' }

-- How many names of a sorted set begin with `prefix` and a NUL.
local function count_under(key, prefix)
  return redis.call('ZLEXCOUNT', key, '[' .. prefix .. '\0', '(' .. prefix .. '\1')
end

local function first_rows(key, rows)
  return redis.call('ZRANGE', key, '-inf', '+inf', 'BYSCORE', 'LIMIT', 0, rows, 'WITHSCORES')
end

-- Leases of members whose heartbeat is overdue: the next operation on the shard ends them.
local function capture_overdue()
  local members = redis.call('ZRANGE', K.members, '-inf', int(now_us), 'BYSCORE', 'LIMIT', 0,
    OVERDUE_MEMBERS_LOOKED_AT)
  local overdue, left = { leases = 0, by_domain = {} }, OVERDUE_LEASES_LOOKED_AT
  for i = 1, #members do
    local prefix = members[i] .. '\0lease'
    overdue.leases = overdue.leases + count_under(K.held, prefix)
    local items = redis.call('ZRANGE', K.held, '[' .. prefix .. '\0', '(' .. prefix .. '\1', 'BYLEX',
      'LIMIT', 0, left)
    for j = 1, #items do
      local lease = redis.call('HGET', K.leases, split(items[j], '\0')[3])
      local name = lease and split(lease, '|')[2] or ''
      overdue.by_domain[name] = (overdue.by_domain[name] or 0) + 1
    end
    left = left - #items
  end
  return overdue
end

local function capture_groups(domain_name, rows)
  local line, list = first_rows(K['line_' .. domain_name], rows), {}
  for i = 1, #line, 2 do
    local name = string.sub(line[i], 18)
    list[#list + 1] = { group = name, weight = group(name).weight, tag = tonumber(line[i + 1]),
      waiting = count_under(K.fifo, domain_name .. '\0' .. name) }
  end
  return list
end

local function capture_domain(name, rows, overdue)
  local d = domain(name)
  local is_used = d.born
  if not is_used and meta.static_cap > 0 then
    WINDOW.bear(d, WINDOW.effective_max(name)) -- in memory only: what the first acquire would find
  end
  local outcomes, granted = {}, d.in_flight -- each lease is live or ended with one outcome
  for i = 1, #OUTCOMES do
    outcomes[OUTCOMES[i]] = d[OUTCOMES[i]]
    granted = granted + outcomes[OUTCOMES[i]]
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
    algorithm = rule_name(),
    ceiling = d.born and WINDOW.ceiling(d) or 0,
    is_trying = d.step > 0 and rule_name() == 'steady',
    successes_needed = d.born and WINDOW.rule().needed(d) or 0,
    quiet_until_us = int(d.quiet_until_us),
    quiet_us = int(math.max(0, d.quiet_until_us - now_us)),
    outlook = d.born and WINDOW.outlook(d) or '',
    minute = MINUTE.capture(d),
    last_outcome = d.last_outcome,
    success_streak = d.success_streak,
    cuts = d.cuts,
    granted = granted,
    outcomes = outcomes,
    waiting_group_count = redis.call('ZCARD', K['line_' .. name]),
    waiting_groups = capture_groups(name, rows),
  }
end

-- Members by expiry, so those overdue come first.
local function capture_members(rows)
  local stored, list = first_rows(K.members, rows), {}
  for i = 1, #stored, 2 do
    list[#list + 1] = { member_id = stored[i], expires_in_us = int(tonumber(stored[i + 1]) - now_us),
      lease_count = count_under(K.held, stored[i] .. '\0lease'),
      waiters = count_under(K.held, stored[i] .. '\0waiter') }
  end
  return list
end

-- Who registered which alias, the smallest caps first.
local function capture_registrations(rows)
  local stored, list = first_rows(K.aliases, rows), {}
  for i = 1, #stored, 2 do
    local part = split(stored[i], '\0')
    list[#list + 1] = { member_id = part[1], alias = part[2], cap = tonumber(stored[i + 1]) }
  end
  return list
end

local function capture_budgets()
  local list, found = {}, all_buckets()
  for number = 1, #BUDGETS do
    local bucket = found[number]
    if bucket then
      list[#list + 1] = { budget = BUDGETS[number], limit = limit_of(bucket),
        burst = burst_of(bucket), level = real(level_now(bucket)), registered = bucket.registered,
        learned = bucket.learned }
    end
  end
  return list
end

local function capture(rows)
  load_meta()
  local overdue, by_name = capture_overdue(), {}
  for i = 1, #DOMAINS do
    by_name[DOMAINS[i]] = capture_domain(DOMAINS[i], rows, overdue)
  end
  return {
    captured_us = int(now_us),
    sequence = meta.sequence,
    generation = meta.generation,
    virtual_time = meta.virtual_time,
    static_cap = meta.static_cap,
    override_cap = setting('override_cap', 0),
    in_flight = meta.in_flight,
    leases = redis.call('HLEN', K.leases),
    waiters = meta.waiters,
    overdue_leases = overdue.leases,
    overdue_members = redis.call('ZCOUNT', K.members, '-inf', int(now_us)),
    overdue_holds = meta.max_hold_us > 0 and redis.call('ZCOUNT', K.holds, '-inf', int(now_us)) or 0,
    member_count = redis.call('ZCARD', K.members),
    members = capture_members(rows),
    registration_count = redis.call('ZCARD', K.aliases),
    registrations = capture_registrations(rows),
    budgets = capture_budgets(),
    token_fair = meta.token_fair > 0,
    domains = by_name,
  }
end
