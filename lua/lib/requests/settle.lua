-- What happened by time alone: members and holds overdue, deadlines past (spec 03, Order; 06,
-- Members). Bounded work per call; what is left over is done by the next.
-- @include lib/requests/shares
local MOST_ENDED = 200
local ended_left = MOST_ENDED -- leases, waiters and aliases of members that are gone, and those members
local denials_left = 64

local function recompute_cap()
  local smallest = redis.call('ZRANGE', K.aliases, 0, 0, 'WITHSCORES')
  local cap = tonumber(smallest[2]) or 0
  local override = setting('override_cap', 0)
  if override > 0 and override < cap then
    cap = override
  end
  if cap == meta.static_cap then
    return
  end
  emit('request_effective_cap_changed', 'from', int(meta.static_cap), 'to', int(cap))
  meta.static_cap = cap
  if cap > 0 then
    for i = 1, #DOMAINS do
      local d = domain(DOMAINS[i])
      if d.born then
        WINDOW.recap(d)
      end
    end
  end
end

-- End what a member holds; true once nothing is left and the member itself is gone.
local function end_member(member, why)
  local items = LEASES.held_by(member, ended_left)
  local caps_changed = false
  for i = 1, #items do
    local part = split(items[i], '\0')
    local kind, id = part[2], part[3]
    if kind == 'lease' then
      lose_lease(id, parse_lease(LEASES.text(id)), why)
    elseif kind == 'waiter' then
      remove_waiter(id, parse_waiter(redis.call('HGET', K.waiters, id)))
    else
      redis.call('ZREM', K.held, items[i])
      redis.call('ZREM', K.aliases, member .. '\0' .. id)
      caps_changed = true
    end
  end
  if caps_changed then
    recompute_cap()
  end
  ended_left = ended_left - #items
  if ended_left <= 0 then
    return false
  end
  ended_left = ended_left - 1
  redis.call('ZREM', K.members, member)
  redis.call('HDEL', K.meta, '@' .. member)
  SUSPECTS.forget(member)
  SHARES.forget(member)
  emit('member_expired', 'member_id', member, 'reason', why)
  return true
end

local function expire_holds()
  if meta.max_hold_us <= 0 or ended_left <= 0 then
    return
  end
  local overdue = redis.call('ZRANGE', K.holds, '-inf', int(now_us), 'BYSCORE', 'LIMIT', 0, ended_left)
  ended_left = ended_left - #overdue
  for i = 1, #overdue do
    local lease = parse_lease(LEASES.text(overdue[i]))
    lose_lease(overdue[i], lease, 'max_hold')
    SHARD.notify(lease.member, '["lost","' .. overdue[i] .. '","max_hold"]')
  end
end

-- When asking again may help, as an instant and from now; zeros if that is not known.
local function may_help(d)
  local at_us = d and (now_us < d.blocked_until_us and d.blocked_until_us or MINUTE.next_opening_us(d))
  return at_us and int(at_us) .. ',' .. int(at_us - now_us) or '0,0'
end

-- What a `queue_timeout` says: when asking again may help, and the budget that was lacking.
local function timed_out(d, cost)
  local until_us, budget
  if meta.budgets > 0 then
    until_us, budget = lacks_until_us(cost)
  end
  if not until_us then
    return may_help(d)
  end
  local at_us = math.max(until_us, d.blocked_until_us, MINUTE.next_opening_us(d) or 0)
  return int(at_us) .. ',' .. int(at_us - now_us) .. ',"lacks_quota","' .. budget .. '"'
end

local function deny_waiter(id, reason)
  local waiter = parse_waiter(redis.call('HGET', K.waiters, id))
  remove_waiter(id, waiter)
  local why = reason == 'queue_timeout' and timed_out(domain(waiter.domain), waiter.cost) or may_help()
  SHARD.notify(waiter.member, '["denied","' .. id .. '","' .. reason .. '",' .. why .. ']')
end

-- Deny those whose deadline lies before an instant, or at it.
local function expire_deadlines(last_us)
  while meta.waiters > 0 do
    local first = redis.call('ZRANGE', K.deadlines, 0, 0, 'WITHSCORES')
    first_deadline_us = tonumber(first[2])
    if not first_deadline_us or first_deadline_us > last_us then
      return
    elseif denials_left == 0 then
      grants_left = 0 -- one whose deadline has passed must not be granted anything
      return
    end
    denials_left, first_deadline_us = denials_left - 1, nil
    deny_waiter(first[1], 'queue_timeout')
  end
end

-- When the last registration is gone, nobody may wait here any more.
local function deny_unregistered()
  if meta.waiters == 0 or meta.static_cap > 0 or denials_left == 0 then
    return
  end
  local names = redis.call('ZRANGE', K.fifo, 0, denials_left - 1)
  for i = 1, #names do
    names[i] = split(names[i], '\0')[4]
  end
  if #names == 0 then
    names = redis.call('ZRANGE', K.aside, 0, denials_left - 1)
    for i = 1, #names do
      names[i] = split(names[i], '\0')[2]
    end
  end
  denials_left = denials_left - #names
  for i = 1, #names do
    deny_waiter(names[i], 'hard_policy_denial')
  end
end

-- A deadline that has passed is served before anything is granted, however late this call comes; at
-- the very instant of a deadline what is possible is given first.
local function settle()
  SUSPECTS.clear_heard(ASIDE.put_back)
  SUSPECTS.check(end_member, ASIDE.put_back)
  if ended_left <= 0 then
    grants_left = 0 -- a member whose end goes on in the next call must not be given anything
  end
  expire_holds()
  deny_unregistered()
  expire_deadlines(now_us - 1)
  grant_waiters()
  expire_deadlines(now_us)
  if meta.budgets > 0 then
    grant_waiters() -- who was denied may have kept a quota
  end
end

-- The instant at which time alone may change something for a waiter, or 0 if nobody waits.
local function next_wake_us()
  if meta.waiters == 0 then
    return 0
  end
  if more_to_grant() or ended_left <= 0 or meta.static_cap == 0 then
    return now_us
  end
  local wake = earlier(SUSPECTS.next_check_us(), first_deadline_us)
  if meta.max_hold_us > 0 then
    wake = earlier(wake, tonumber(redis.call('ZRANGE', K.holds, 0, 0, 'WITHSCORES')[2]))
  end
  for name in waiting_domains() do
    local d = domain(name)
    if d.blocked_until_us > now_us then
      wake = earlier(wake, d.blocked_until_us)
    end
    wake = earlier(wake, LIMITS.next_climb_us(d))
    wake = earlier(wake, MINUTE.next_opening_us(d))
  end
  if meta.budgets > 0 then
    for _, head in ipairs(heads_in_order()) do
      wake = earlier(wake, lacks_until_us(waiter_of(head).cost))
    end
  end
  return wake or 0
end
