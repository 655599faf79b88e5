-- Facts of one instant that explain why a waiter, a group or a provider/model waits. Sentences are made of them by
-- coordinator/requests/explaining.py.
-- @include lib/requests/capture
local EXPLAIN = { leases_read = 5000, oldest = 3, per_round = 1000, rounds = 20, events_read = 500 }

-- A lease or a waiter as facts.
function EXPLAIN.entry(id, entry)
  local expiry = redis.call('ZSCORE', K.members, entry.member)
  return { id = id, member_id = entry.member, domain = entry.domain, group = entry.group,
    acquired_us = entry.acquired_us or '', deadline_us = entry.deadline_us and int(entry.deadline_us) or '',
    cost = entry.cost or 0, expires_in_us = expiry and int(tonumber(expiry) - now_us) or '' }
end

function EXPLAIN.lease(id)
  local text = redis.call('HGET', K.leases, id)
  return text and EXPLAIN.entry(id, LEASES.parse(text)) or nil
end

function EXPLAIN.waiter(id)
  local text = redis.call('HGET', K.waiters, id)
  if not text then
    return nil
  end
  local waiter = ENTRIES.parse_waiter(text)
  local facts, place = EXPLAIN.entry(id, waiter), ENTRIES.fifo_member(waiter, id)
  facts.is_aside = not redis.call('ZSCORE', K.fifo, place)
  facts.ahead = redis.call('ZLEXCOUNT', K.fifo, '[' .. waiter.domain .. '\0' .. waiter.group .. '\0', '(' .. place)
  local lacks_until_us, budget = BUDGETS.lacks_until_us(waiter.cost)
  facts.lacks_until_us, facts.lacks = lacks_until_us and int(lacks_until_us) or '', budget or ''
  return facts
end

-- The leases of each domain: how many by group, and the oldest.
function EXPLAIN.holders()
  local by_domain, cursor, rounds, looked_at = {}, '0', 0, 0
  repeat
    local found = redis.call('HSCAN', K.leases, cursor, 'COUNT', EXPLAIN.per_round)
    cursor, rounds = found[1], rounds + 1
    for i = 1, #found[2], 2 do
      local lease = LEASES.parse(found[2][i + 1])
      local held = by_domain[lease.domain] or { groups = {}, oldest = {} }
      by_domain[lease.domain], looked_at = held, looked_at + 1
      held.groups[lease.group] = (held.groups[lease.group] or 0) + 1
      held.oldest[#held.oldest + 1] = { id = found[2][i], member_id = lease.member, group = lease.group,
        acquired_us = lease.acquired_us }
      table.sort(held.oldest, function(a, b) return a.acquired_us < b.acquired_us end)
      held.oldest[EXPLAIN.oldest + 1] = nil
    end
  until cursor == '0' or rounds == EXPLAIN.rounds or looked_at >= EXPLAIN.leases_read
  return by_domain
end

-- The last move of each domain's window among the last events.
function EXPLAIN.moves()
  local found, moves = redis.call('XREVRANGE', K.events, '+', '-', 'COUNT', EXPLAIN.events_read), {}
  for i = 1, #found do
    local fields = {}
    for j = 1, #found[i][2], 2 do
      fields[found[i][2][j]] = found[i][2][j + 1]
    end
    if fields.domain and not moves[fields.domain]
      and (fields.kind == 'request_limit_decreased' or fields.kind == 'request_limit_increased') then
      moves[fields.domain] = { at_us = fields.at_us, from = fields.from, to = fields.to, reason = fields.reason }
    end
  end
  return moves
end

-- A group: its weight, and in which domains it waits how far in front.
function EXPLAIN.group(name)
  if redis.call('HEXISTS', K.groups, name) == 0 then
    return nil
  end
  local g = GROUPS.of(name)
  local facts = { group = name, weight = g.weight, domains = {} }
  for i = 1, #DOMAINS do
    local rank = g.tag and redis.call('ZRANK', K['line_' .. DOMAINS[i]], ENTRIES.line_member(g))
    if rank then
      facts.domains[DOMAINS[i]] = { rank = rank, waiting = CAPTURE.count_under(K.fifo, DOMAINS[i] .. '\0' .. name),
        groups = redis.call('ZCARD', K['line_' .. DOMAINS[i]]) }
    end
  end
  return facts
end

-- `names`: the requested name, as typed and as encoded in keys.
function EXPLAIN.shard(rows, names)
  local shard = CAPTURE.shard(rows)
  if not shard.generation then
    return shard
  end
  for i = 1, #names do
    shard.waiter = shard.waiter or EXPLAIN.waiter(names[i])
    shard.lease = shard.lease or EXPLAIN.lease(names[i])
    shard.group = shard.group or EXPLAIN.group(names[i])
  end
  if shard.waiter then
    shard.group_of_waiter = EXPLAIN.group(shard.waiter.group)
  end
  shard.held, shard.moves, shard.minute_ends = EXPLAIN.holders(), EXPLAIN.moves(), {}
  for i = 1, #DOMAINS do
    local d = STATE.domain(DOMAINS[i])
    shard.minute_ends[DOMAINS[i]] = d.born and MINUTE.next_opening_us(d) and int(MINUTE.next_opening_us(d)) or nil
  end
  shard.recovering_us = int(meta.recovering_us)
  return shard
end
