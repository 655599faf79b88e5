-- Granting and ending leases. A lease is one small string under its id, and one entry of its
-- member's part of `held`, so that a member's end finds it without a scan.
-- @include lib/shard/leases
-- @include lib/requests/draws
-- @include lib/requests/tokens
-- @include lib/requests/turns
-- @include lib/requests/window

-- Grant; the reply's fields of a grant are returned as text.
function LEASES.grant(id, member, d, group_name, cost)
  if meta.budgets > 0 then
    DRAWS.take(cost)
  end
  if not d.rest_text or d.terms_of ~= d.rest_text then
    local limit, cuts, effective_max = int(d.current_limit), int(d.cuts), int(d.effective_max)
    d.terms_of, d.terms = d.rest_text, '|' .. limit .. '|' .. cuts .. '|' .. effective_max
    d.terms_told = ',' .. limit .. ',' .. cuts .. ',' .. effective_max
  end
  local has_hold = meta.max_hold_us > 0
  LEASES.make(id, member, member .. '|' .. d.name .. '|' .. group_name .. '|' .. now_text .. d.terms
    .. (has_hold and '|hold' or '|') .. (cost > 0 and ENTRIES.cost_text(cost) or ''))
  if meta.in_flight == 0 then
    EXPIRY.with_shard('leases')
  end
  if has_hold then
    EXPIRY.with_shard('holds')
    redis.call('ZADD', K.holds, int(now_us + meta.max_hold_us), id)
  end
  d.in_flight = d.in_flight + 1
  meta.in_flight = meta.in_flight + 1
  return now_text .. d.terms_told
end

-- The usage of an attempt settles its budgets and, if the shard is fair by tokens, its group's turn.
function LEASES.settle_cost(lease, used, is_unsent)
  if meta.budgets > 0 then
    DRAWS.settle(lease.cost, used, is_unsent)
  end
  if meta.token_fair > 0 then
    TURNS.settle(GROUPS.of(lease.group), TURNS.cost(used) - TURNS.cost(lease.cost))
  end
end

function LEASES.release(id, lease, outcome, retry_after_us, used, scope)
  LEASES.finish(id, lease, outcome == 'member_lost')
  if lease.has_hold then
    redis.call('ZREM', K.holds, id)
  end
  local d = STATE.domain(lease.domain)
  d.in_flight = d.in_flight - 1
  meta.in_flight = meta.in_flight - 1
  if used ~= '' then
    LEASES.settle_cost(lease, used == 'unsent' and 0 or TOKENS.used(d, used), used == 'unsent')
  end
  WINDOW.on_outcome(d, lease, outcome, retry_after_us, scope)
end

function LEASES.lose(id, lease, why)
  emit('request_lease_expired', 'lease_id', id, 'member_id', lease.member, 'domain', lease.domain,
    'reason', why)
  LEASES.release(id, lease, 'member_lost', 0, '', '')
end
