-- The operations by which a member states its leases and waiters to a shard that lost state (design 06, *Generations*).
-- @include lib/requests/operations
-- @include lib/requests/rebuild
-- Why a member cannot hold or wait for what it states under an id, nil where it can.
function ATTEMPTS.refusal(id)
  local text = LEASES.text(id)
  if text then
    return LEASES.parse(text).member ~= caller and '["stale_lease"]'
  end
  return LEASES.ended(id) and '["stale_lease"]'
end

-- A lease that the caller holds. One that ended meanwhile, as far as the shard remembers, stays ended.
function OPERATIONS.hold(id, domain_name, group_name, acquired_us, limit, cuts, effective_max, cost)
  local refusal, text = ATTEMPTS.refusal(id), LEASES.text(id)
  if refusal or text then
    return refusal or '["held"]'
  end
  local waiter = meta.waiters > 0 and redis.call('HGET', K.waiters, id)
  if waiter then
    QUEUE.remove(id, ENTRIES.parse_waiter(waiter)) -- it was granted after what the shard remembers
  end
  local has_hold = meta.max_hold_us > 0
  local lease = table.concat({ caller, domain_name, group_name, acquired_us, limit, cuts, effective_max,
    has_hold and 'hold' or '' }, '|') .. ENTRIES.cost_text(tonumber(cost))
  EXPIRY.with_shard('leases')
  LEASES.make(id, caller, lease)
  lease_texts[id] = lease
  STATE.count_lease(id, LEASES.parse(lease))
  emit('lease_adopted', 'lease_id', id, 'member_id', caller, 'domain', domain_name)
  return '["held"]'
end

-- An attempt that waits, since `age_us` ago; its answer is that of `acquire`.
function OPERATIONS.wait(id, domain_name, group_name, weight, cost, wait, age_us)
  local known = ATTEMPTS.known(id)
  if known then
    return known
  elseif known == false or LEASES.ended(id) == 'released' then
    return ATTEMPTS.failed('ATTEMPT_ID_USED', id)
  elseif meta.static_cap == 0 then
    return '["unknown"]'
  end
  local g = GROUPS.of(group_name)
  g.weight, g.dirty = tonumber(weight), true
  local waiter = { member = caller, domain = domain_name, group = group_name, cost = tonumber(cost),
    arrival = string.format('%016.0f', math.max(0, now_us - tonumber(age_us))), since_us = now_us - tonumber(age_us),
    deadline_us = wait ~= '' and now_us + tonumber(wait) or nil }
  QUEUE.write(id, waiter)
  QUEUE.put_back(id, waiter)
  QUEUE.grant()
  return '["waiting"]'
end

FOR_MEMBERS.recall, FOR_MEMBERS.hold, FOR_MEMBERS.wait = true, true, true
FORMS.recall, FORMS.inventory = { 1 }, { 1 }
FORMS.hold = { 8, 2, STATE.place_of_window, 'to_be' }
FORMS.wait = { 7, 2, STATE.place_of_window, 'to_be' }
