-- Effects of time: overdue members and holds, passed deadlines (design 03, *Order*;
-- design 06, *Members*). Bounded work per call; what is left over is done by the next.
-- @include lib/shard/members
-- @include lib/requests/queue
-- @include lib/requests/shares
-- @include lib/requests/check
local SETTLING = {}
local CAPS = {}
local denials_left = 64

function CAPS.recompute()
  local smallest = redis.call('ZRANGE', K.aliases, 0, 0, 'WITHSCORES')
  local cap = tonumber(smallest[2]) or 0
  if cap == 0 then
    DAMAGE.check(true) -- whether all registrations ended, or went
  end
  local override = STATE.setting('override_cap', 0)
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
      local d = STATE.domain(DOMAINS[i])
      if d.born then
        WINDOW.recap(d)
      end
    end
  end
end

function MEMBERS.drop(entry, kind, id)
  if kind == 'waiter' then
    QUEUE.remove(id, ENTRIES.parse_waiter(redis.call('HGET', K.waiters, id)))
  else
    redis.call('ZREM', K.held, entry)
    redis.call('ZREM', K.aliases, string.match(entry, '^[^%z]*') .. '\0' .. id)
  end
end

function MEMBERS.end_rest()
  CAPS.recompute() -- its aliases are gone
  return 0
end

MEMBERS.forget = SHARES.forget

function SETTLING.expire_holds()
  if meta.max_hold_us <= 0 or ended_left <= 0 then
    return
  end
  local overdue = redis.call('ZRANGE', K.holds, '-inf', int(now_us), 'BYSCORE', 'LIMIT', 0, ended_left)
  ended_left = ended_left - #overdue
  for i = 1, #overdue do
    local lease = LEASES.parse(LEASES.text(overdue[i]))
    LEASES.lose(overdue[i], lease, 'max_hold')
    SHARD.notify(lease.member, '["lost","' .. overdue[i] .. '","max_hold"]')
  end
end

-- When another acquire may succeed, as an instant and from now; zeros if that is not known.
function SETTLING.may_help(d)
  local at_us = d and (now_us < d.blocked_until_us and d.blocked_until_us or MINUTE.next_opening_us(d))
  return at_us and int(at_us) .. ',' .. int(at_us - now_us) or '0,0'
end

-- The fields of a `queue_timeout`: when another acquire may succeed, and the lacking budget.
function SETTLING.timed_out(d, cost)
  local until_us, budget
  if meta.budgets > 0 then
    until_us, budget = BUDGETS.lacks_until_us(cost)
  end
  if not until_us then
    return SETTLING.may_help(d)
  end
  local at_us = math.max(until_us, d.blocked_until_us, MINUTE.next_opening_us(d) or 0)
  return int(at_us) .. ',' .. int(at_us - now_us) .. ',"lacks_quota","' .. budget .. '"'
end

function SETTLING.deny(id, reason)
  local waiter = ENTRIES.parse_waiter(redis.call('HGET', K.waiters, id))
  QUEUE.remove(id, waiter)
  local why = reason == 'queue_timeout' and SETTLING.timed_out(STATE.domain(waiter.domain), waiter.cost) or SETTLING.may_help()
  SHARD.notify(waiter.member, '["denied","' .. id .. '","' .. reason .. '",' .. why .. ']')
end

-- Deny those whose deadline lies before an instant, or at it.
function SETTLING.expire_deadlines(last_us)
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
    SETTLING.deny(first[1], 'queue_timeout')
  end
end

-- Deny all waiters when the last registration is gone.
function SETTLING.deny_unregistered()
  if meta.waiters == 0 or meta.static_cap > 0 or denials_left == 0 or meta.recovering_us > 0 then
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
    SETTLING.deny(names[i], 'hard_policy_denial')
  end
end

-- A deadline that has passed is served before anything is granted, however late this call comes; at
-- the very instant of a deadline what is possible is given first.
function SETTLING.begin()
  SUSPECTS.clear_heard(ASIDE.put_back)
  SUSPECTS.check(MEMBERS.finish, ASIDE.put_back)
  if ended_left <= 0 then
    grants_left = 0 -- a member whose end goes on in the next call must not be given anything
  end
  SETTLING.expire_holds()
  if meta.waiters == 0 then
    return
  end
  SETTLING.deny_unregistered()
  SETTLING.expire_deadlines(now_us - 1)
  QUEUE.grant()
  SETTLING.expire_deadlines(now_us)
  if meta.budgets > 0 then
    QUEUE.grant() -- who was denied may have kept a quota
  end
end

-- The last step of a call; waiters were granted before, as slots became free.
function SETTLING.finish() end

-- The instant at which a timer of this shard is due for a waiter, or 0 without waiters.
function SETTLING.next_wake_us()
  if meta.waiters == 0 then
    return 0
  elseif meta.recovering_us > 0 then
    return earlier(meta.recovering_us, first_deadline_us)
  end
  if QUEUE.has_more_to_grant() or ended_left <= 0 or meta.static_cap == 0 then
    return now_us
  end
  local wake = earlier(SUSPECTS.next_check_us(), first_deadline_us)
  if meta.max_hold_us > 0 then
    wake = earlier(wake, tonumber(redis.call('ZRANGE', K.holds, 0, 0, 'WITHSCORES')[2]))
  end
  for name in STATE.waiting_domains() do
    local d = STATE.domain(name)
    if d.blocked_until_us > now_us then
      wake = earlier(wake, d.blocked_until_us)
    end
    wake = earlier(wake, LIMITS.next_climb_us(d))
    wake = earlier(wake, MINUTE.next_opening_us(d))
  end
  if meta.budgets > 0 then
    for _, head in ipairs(QUEUE.heads_in_order()) do
      wake = earlier(wake, BUDGETS.lacks_until_us(QUEUE.waiter_of(head).cost))
    end
  end
  return wake or 0
end
