-- The operations of a request shard.
-- @include lib/shard/operations
-- @include lib/requests/settle
-- @include lib/requests/settings
-- @include lib/requests/memory
local ATTEMPTS = {}

function ATTEMPTS.denied(reason, d)
  return '["denied","' .. reason .. '",' .. SETTLING.may_help(d) .. ']'
end

function ATTEMPTS.denied_until(reason, us)
  return '["denied","' .. reason .. '",' .. int(us) .. ',' .. int(us - now_us) .. ']'
end

function ATTEMPTS.failed(code, detail)
  return '["error","' .. code .. '","' .. detail .. '"]'
end

function ATTEMPTS.granted(id, lease)
  return '["granted","' .. id .. '",' .. lease.acquired_us .. ',' .. lease.limit .. ','
    .. int(lease.cuts) .. ',' .. lease.effective_max .. ']'
end

-- The result of an attempt that the caller holds or waits for, false if its id is another's, nil
-- if there is none.
function ATTEMPTS.known(id)
  local text = LEASES.text(id)
  if text then
    local lease = LEASES.parse(text)
    return lease.member == member_id and ATTEMPTS.granted(id, lease)
  end
  text = meta.waiters > 0 and redis.call('HGET', K.waiters, id)
  if text then
    if not DAMAGE.can_read.waiters(text) then
      DAMAGE.raise('waiters') -- it is nobody else's because of that
    end
    return ENTRIES.parse_waiter(text).member == member_id and '["waiting"]'
  end
  return nil
end

-- Why `try_acquire` gets nothing. Where somebody waits in its domain, that is what is in its way:
-- what becomes free goes to the waiters.
function ATTEMPTS.refused_now(d, cost)
  if now_us < d.blocked_until_us then
    return ATTEMPTS.denied('cooldown', d)
  elseif d.waiters > 0 then
    return ATTEMPTS.denied('queued_waiters_ahead', d)
  elseif not QUEUE.is_open(d) then
    return ATTEMPTS.denied('no_capacity', d)
  end
  local until_us = meta.budgets > 0 and BUDGETS.lacks_until_us(cost)
  return until_us and ATTEMPTS.denied_until('quota', until_us) or ATTEMPTS.denied('queued_waiters_ahead')
end

function OPERATIONS.acquire(id, domain_name, group_name, weight, cost_given, wait)
  local known = ATTEMPTS.known(id)
  if known then
    return known
  end
  -- One that expired with its member may be asked for again: the member that comes back asks under the
  -- same id for what it still needs.
  if known == false or LEASES.ended(id) == 'released' then
    return ATTEMPTS.failed('ATTEMPT_ID_USED', id)
  end
  if meta.static_cap == 0 then -- a call from before a loss may be repeated before its member registers again
    return meta.recovering_us > 0 and '["unknown"]' or ATTEMPTS.denied('hard_policy_denial')
  end
  local cost, estimate = TOKENS.parse(cost_given)
  local too_small = meta.budgets > 0 and BUDGETS.never_fits(cost)
  if too_small then
    return '["denied","hard_policy_denial",0,0,"never_fits","' .. too_small .. '"]'
  end
  local d, g = STATE.domain(domain_name), GROUPS.of(group_name)
  if not d.born then
    WINDOW.create(d, WINDOW.effective_max(domain_name))
  end
  cost = TOKENS.cost(d, cost, estimate)
  local new_weight = NUMBERS[weight] or tonumber(weight)
  if g.weight ~= new_weight then
    g.weight, g.dirty = new_weight, true
  end
  -- After a full settle no waiter can be granted now, so a newcomer that may go goes past nobody.
  if (grants_left > 0 or not QUEUE.has_more_to_grant()) and QUEUE.may_go_at_once(d, g, cost) then
    TURNS.take(g, TURNS.cost(cost))
    local terms = LEASES.grant(id, member_id, d, group_name, cost)
    if meta.budgets > 0 then
      QUEUE.grant() -- its group's turn is over: one that was behind its reservation may be first
    end
    return '["granted","' .. id .. '",' .. terms .. ']'
  end
  if wait == 'try' then
    return ATTEMPTS.refused_now(d, cost)
  end
  if wait == '0' then
    return '["denied","queue_timeout",' .. SETTLING.timed_out(d, cost) .. ']'
  end
  QUEUE.add(id, member_id, d, g, cost, wait ~= '' and now_us + tonumber(wait) or nil)
  if meta.budgets > 0 then
    QUEUE.grant() -- a group that waits elsewhere may stand before equal tags here
  end
  return '["waiting"]'
end

-- A release of an unknown lease is an event; cancelling a denied acquire is no fault.
function ATTEMPTS.release(id, outcome, retry_after_us, generation, used, scope, is_cancel)
  local lease, result = LEASES.own(id, member_id)
  if not lease then
    if result == '["unknown_lease"]' and generation ~= meta.generation then
      result = '["wrong_generation"]'
    end
    if not is_cancel then
      if result == '["unknown_lease"]' then
        DAMAGE.check() -- whether it went with others
      end
      emit('request_release_diagnostic', 'code', string.sub(result, 3, -3), 'lease_id', id,
        'member_id', member_id, 'outcome', outcome)
    end
    return result
  end
  LEASES.release(id, lease, outcome, NUMBERS[retry_after_us] or tonumber(retry_after_us), used, scope)
  if meta.waiters > 0 then
    QUEUE.grant()
  end
  return '["released"]'
end

OPERATIONS.release = ATTEMPTS.release

-- Cancel an acquire: remove its waiter, or release its lease.
function OPERATIONS.cancel(id)
  local text = meta.waiters > 0 and redis.call('HGET', K.waiters, id)
  if text and ENTRIES.parse_waiter(text).member == member_id then
    QUEUE.remove(id, ENTRIES.parse_waiter(text))
    QUEUE.grant()
    return '["cancelled"]'
  end
  return ATTEMPTS.release(id, 'local_cancelled', '0', meta.generation, 'unsent', '', true)
end

-- The state of an attempt that its member still waits for.
function OPERATIONS.state(id)
  return ATTEMPTS.known(id) or '["unknown"]'
end

-- A look at a quiet shard, where nobody's call would end a dead member; with how long until the next look,
-- where anything is held that a death would free, else null; and what the caller is to remember of the shard.
function OPERATIONS.sweep()
  DAMAGE.check()
  local next_us = meta.in_flight + meta.waiters > 0 and SUSPECTS.next_check_us()
  return '["swept",' .. (next_us and int(math.max(0, next_us - now_us)) or 'null') .. ',' .. MEMORY.text() .. ']'
end

-- The share of the caller, should the server go away; `known`: the ticket of the last reply that it has.
function OPERATIONS.share(known)
  return SHARES.answer(member_id, tonumber(known) or 0)
end

-- Store an alias's cap; a new or changed one is an event.
function SETTINGS.register_alias(alias, cap)
  local entry = member_id .. '\0' .. alias
  local before = tonumber(redis.call('ZSCORE', K.aliases, entry) or 0)
  if before == 0 and meta.static_cap > 0 and meta.recovering_us == 0 and redis.call('EXISTS', K.aliases) == 0 then
    DAMAGE.raise('aliases')
  end
  redis.call('ZADD', K.aliases, cap, entry)
  redis.call('ZADD', K.held, 0, ENTRIES.alias(member_id, alias))
  if before ~= tonumber(cap) then
    emit('request_resource_registered', 'alias', alias, 'from', int(before), 'cap', cap, 'member_id',
      member_id)
  end
end

-- Register an alias with its cap; `tuning` is the resource's settings, each "" where not set.
function OPERATIONS.register(alias, cap, tuning)
  SETTINGS.register(alias, split(tuning, ','))
  SETTINGS.register_alias(alias, cap)
  EXPIRY.with_shard('aliases')
  EXPIRY.with_shard('held')
  CAPS.recompute()
  for i = 1, #DOMAINS do
    local d = STATE.domain(DOMAINS[i])
    if d.born and WINDOW.effective_max(d.name) ~= d.effective_max then
      WINDOW.recap(d)
    end
  end
  QUEUE.grant()
  return '["registered",' .. int(meta.static_cap) .. ']'
end

-- Store a quota reading of an answer's headers.
function OPERATIONS.learn(budget, limit, remaining, at_us)
  DRAWS.learn(BUDGETS.number_of[budget], tonumber(limit), tonumber(remaining), tonumber(at_us))
  QUEUE.grant()
  return '["learned"]'
end

-- A clean shutdown: everything of this member ends at once, 200 a call.
function OPERATIONS.leave()
  if not MEMBERS.leave() then
    grants_left = 0 -- what is left of the caller waits no more: it must not be given anything
  end
  SETTLING.deny_unregistered()
  QUEUE.grant()
  return has_left and '["left"]' or '["leaving"]'
end

STATE.read_ahead = LEASES.read_ahead
FOR_MEMBERS.acquire, FOR_MEMBERS.register, FOR_MEMBERS.share = true, true, true
FORMS.acquire = { 6, 2, STATE.place_of_window, 'to_be' }
FORMS.release = { 6, 2, {}, 'there' }
for i = 1, #STATE.outcomes do
  FORMS.release[3][STATE.outcomes[i]] = true
end
FORMS.learn = { 4, 1, BUDGETS.number_of }
FORMS.cancel, FORMS.state = { 1, nil, nil, 'there' }, { 1, nil, nil, 'there' }
FORMS.register, FORMS.leave, FORMS.sweep, FORMS.share = { 3 }, { 0 }, { 0 }, { 1 }
