-- The operations of a batch. Each returns its own result as JSON text; ids arrive encoded, so that
-- none can break a string.
local has_left = false -- whether the caller's membership ended in this batch

local function denied(reason, d)
  return '["denied","' .. reason .. '",' .. may_help(d) .. ']'
end

local function denied_until(reason, us)
  return '["denied","' .. reason .. '",' .. int(us) .. ',' .. int(us - now_us) .. ']'
end

local function failed(code, detail)
  return '["error","' .. code .. '","' .. detail .. '"]'
end

local function granted(id, lease)
  return '["granted","' .. id .. '",' .. lease.acquired_us .. ',' .. lease.limit .. ','
    .. int(lease.cuts) .. ',' .. lease.effective_max .. ']'
end

-- The result of an attempt that the caller holds or waits for, false if its id is another's, nil
-- if there is none.
local function known_attempt(id)
  local text = LEASES.text(id)
  if text then
    local lease = parse_lease(text)
    return lease.member == member_id and granted(id, lease)
  end
  text = meta.waiters > 0 and redis.call('HGET', K.waiters, id)
  if text then
    return parse_waiter(text).member == member_id and '["waiting"]'
  end
  return nil
end

-- Why `try_acquire` gets nothing. Where somebody waits in its domain, that is what is in its way:
-- what becomes free goes to the waiters.
local function refused_now(d, cost)
  if now_us < d.blocked_until_us then
    return denied('cooldown', d)
  elseif d.waiters > 0 then
    return denied('queued_waiters_ahead', d)
  elseif not open(d) then
    return denied('no_capacity', d)
  end
  local until_us = meta.budgets > 0 and lacks_until_us(cost)
  return until_us and denied_until('quota', until_us) or denied('queued_waiters_ahead')
end

local function acquire(id, domain_name, group_name, weight, cost_given, wait)
  if has_left then
    return failed('NOMEMBER', member_id)
  end
  local known = known_attempt(id)
  if known then
    return known
  end
  -- One that expired with its member may be asked for again: the member that comes back asks under the
  -- same id for what it still needs.
  if known == false or LEASES.ended(id) == 'released' then
    return failed('ATTEMPT_ID_USED', id)
  end
  if meta.static_cap == 0 then
    return denied('hard_policy_denial')
  end
  local cost = NUMBERS[cost_given] or tonumber(cost_given)
  local too_small = meta.budgets > 0 and never_fits(cost)
  if too_small then
    return '["denied","hard_policy_denial",0,0,"never_fits","' .. too_small .. '"]'
  end
  local d, g = domain(domain_name), group(group_name)
  if not d.born then
    WINDOW.bear(d, WINDOW.effective_max(domain_name))
  end
  local new_weight = NUMBERS[weight] or tonumber(weight)
  if g.weight ~= new_weight then
    g.weight, g.dirty = new_weight, true
  end
  -- After a full settle no waiter can be granted now, so a newcomer that may go goes past nobody.
  if not more_to_grant() and may_go_at_once(d, g, cost) then
    advance(g, turn_cost(cost))
    local terms = grant_lease(id, member_id, d, group_name, cost)
    if meta.budgets > 0 then
      grant_waiters() -- its group's turn is over: one that was behind its reservation may be first
    end
    return '["granted","' .. id .. '",' .. terms .. ']'
  end
  if wait == 'try' then
    return refused_now(d, cost)
  end
  if wait == '0' then
    return '["denied","queue_timeout",' .. timed_out(d, cost) .. ']'
  end
  add_waiter(id, member_id, d, g, cost, wait ~= '' and now_us + tonumber(wait) or nil)
  if meta.budgets > 0 then
    grant_waiters() -- a group that waits elsewhere may stand before equal tags here
  end
  return '["waiting"]'
end

-- What is known of a lease id that is not a live lease of the caller.
local function not_a_lease(id, lease, generation)
  if lease then
    return '["stale_lease"]'
  end
  local ended = LEASES.ended(id)
  if ended then
    return ended == 'expired' and '["stale_lease"]' or '["duplicate"]'
  end
  return generation ~= meta.generation and '["wrong_generation"]' or '["unknown_lease"]'
end

-- A release that ends nothing is told; taking back an acquire that was denied is no fault.
local function release(id, outcome, retry_after_us, generation, used, scope, is_cancel)
  local text = LEASES.text(id)
  local lease = text and parse_lease(text)
  if not lease or lease.member ~= member_id then
    local result = not_a_lease(id, lease, generation)
    if not is_cancel then
      emit('request_release_diagnostic', 'code', string.sub(result, 3, -3), 'lease_id', id,
        'member_id', member_id, 'outcome', outcome)
    end
    return result
  end
  end_lease(id, lease, outcome, NUMBERS[retry_after_us] or tonumber(retry_after_us), used, scope)
  grant_waiters()
  return '["released"]'
end

-- Take back an acquire, whichever way it went: the waiter leaves, or the lease is given back.
local function cancel(id)
  local text = meta.waiters > 0 and redis.call('HGET', K.waiters, id)
  if text and parse_waiter(text).member == member_id then
    remove_waiter(id, parse_waiter(text))
    grant_waiters()
    return '["cancelled"]'
  end
  return release(id, 'local_cancelled', '0', meta.generation, 'unsent', '', true)
end

-- What became of an attempt that its member still waits for.
local function state(id)
  return known_attempt(id) or '["unknown"]'
end

-- A look at a quiet shard, where nobody's call would end a dead member; with how long until the next look,
-- where anything is held that a death would free.
local function sweep()
  local next_us = meta.in_flight + meta.waiters > 0 and SUSPECTS.next_check_us()
  return next_us and '["swept",' .. int(math.max(0, next_us - now_us)) .. ']' or '["swept"]'
end

-- The part of the caller, should the server go away.
local function share()
  if has_left then
    return failed('NOMEMBER', member_id)
  end
  return SHARES.tell(member_id)
end

-- Write down an alias's cap; one that is new or another than before is told.
local function register_alias(alias, cap)
  local entry = member_id .. '\0' .. alias
  local before = tonumber(redis.call('ZSCORE', K.aliases, entry) or 0)
  redis.call('ZADD', K.aliases, cap, entry)
  redis.call('ZADD', K.held, 0, alias_entry(member_id, alias))
  if before ~= tonumber(cap) then
    emit('request_resource_registered', 'alias', alias, 'from', int(before), 'cap', cap, 'member_id',
      member_id)
  end
end

-- Register an alias with its cap; `tuning` is the resource's settings, each "" where not set.
local function register(alias, cap, tuning)
  if has_left then
    return failed('NOMEMBER', member_id)
  end
  SETTINGS.register(alias, split(tuning, ','))
  register_alias(alias, cap)
  may_be_new('aliases')
  may_be_new('held')
  recompute_cap()
  for i = 1, #DOMAINS do
    local d = domain(DOMAINS[i])
    if d.born and WINDOW.effective_max(d.name) ~= d.effective_max then
      WINDOW.recap(d)
    end
  end
  grant_waiters()
  return '["registered",' .. int(meta.static_cap) .. ']'
end

local NUMBER_OF = {}
for i = 1, #BUDGETS do
  NUMBER_OF[BUDGETS[i]] = i
end

-- What an answer's headers said of a budget.
local function learn(budget, limit, remaining, at_us)
  learn_budget(NUMBER_OF[budget], tonumber(limit), tonumber(remaining), tonumber(at_us))
  grant_waiters()
  return '["learned"]'
end

-- A clean shutdown: everything of this member ends at once, 200 a call.
local function leave()
  local left = end_member(member_id, 'left')
  has_left = has_left or left
  if not left then
    grants_left = 0 -- what is left of the caller waits no more: it must not be given anything
  end
  deny_unregistered()
  grant_waiters()
  return left and '["left"]' or '["leaving"]'
end

local IS_DOMAIN = {}
for i = 1, #DOMAINS do
  IS_DOMAIN[DOMAINS[i]] = true
end
local IS_OUTCOME = { success = true, rate_limited = true, provider_failure = true,
  provider_timeout = true, local_cancelled = true, local_timeout = true,
  unexpected_exception = true, member_lost = true }

-- How many arguments, what to do, which argument must be one of which words, and whether the first is the id
-- of a lease that is there, or of one to be.
local OPERATIONS = {
  acquire = { 6, acquire, 2, IS_DOMAIN, 'to_be' },
  release = { 6, release, 2, IS_OUTCOME, 'there' },
  learn = { 4, learn, 1, NUMBER_OF },
  cancel = { 1, cancel, nil, nil, 'there' },
  state = { 1, state, nil, nil, 'there' },
  register = { 3, register },
  leave = { 0, leave },
  sweep = { 0, sweep },
  share = { 0, share },
}
