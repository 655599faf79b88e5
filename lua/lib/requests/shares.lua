-- The shares with which members go on while the server is away, `on_unavailable` = `local_share`
-- (docs/adr/0024). A member that asks for its share is a sharer until its membership ends. It is told how many
-- sharers there are and its rank, by order of entry, and whether every other one is known to have a reply of
-- after its entry: before that another may count without it, so its own share is 0. Shares worked out from any
-- such replies then add up to one window at most: ranks keep their order, and no reply counts fewer than later
-- entitled sharers.
-- @include lib/shard/groups
-- @include lib/requests/budgets
-- @include lib/requests/window
local SHARES = { few_sharers = 64 }

-- The limit of each domain in the order of DOMAINS and how long its cooldown lasts, then the learned budget of
-- its minute.
function SHARES.domains()
  local texts = {}
  for i = 1, #DOMAINS do
    local d = STATE.domain(DOMAINS[i])
    local limit, minute = d.current_limit, 0
    if not d.born then
      limit = meta.static_cap > 0 and WINDOW.first_limit(d.name, WINDOW.effective_max(d.name)) or 0
    elseif MINUTE.is_learned(d) then
      minute = d.budget
    end
    texts[i] = '[' .. int(limit) .. ',' .. int(math.max(0, d.blocked_until_us - now_us)) .. ','
      .. int(minute) .. ']'
  end
  return '[' .. table.concat(texts, ',') .. ']'
end

-- Limit and burst of each budget in the order of BUDGETS; zeros where there is none.
function SHARES.budgets()
  local texts = {}
  for i = 1, #BUDGETS.names do
    local bucket = BUDGETS.all()[i]
    texts[i] = '[' .. int(bucket and BUDGETS.limit_of(bucket) or 0) .. ',' .. int(bucket and BUDGETS.burst_of(bucket) or 0) .. ']'
  end
  return '[' .. table.concat(texts, ',') .. ']'
end

-- Each sharer stands in `sharers` twice: by the ticket of its entry, and after a NUL by minus the ticket of the
-- latest reply that it is known to have: it says which with its next question, as a reply may be lost. Tickets
-- only grow, so one command gives a rank and another the oldest of those replies.
-- `known`: ticket of the last reply that the caller has of this membership; 0 for none.
function SHARES.answer(member, known)
  local ticket = GROUPS.next_place()
  local is_new = redis.call('ZADD', K.sharers, 'NX', int(ticket), member) == 1
  local entered = is_new and ticket or tonumber(redis.call('ZSCORE', K.sharers, member))
  known = math.max(entered, known < ticket and known or 0) -- no reply before its entry is used
  redis.call('ZADD', K.sharers, int(-known), '\0' .. member)
  EXPIRY.with_shard('sharers')
  local count = redis.call('ZCARD', K.sharers) / 2
  local rank = redis.call('ZRANK', K.sharers, member) - count
  local oldest = redis.call('ZRANGE', K.sharers, '(0', '-inf', 'BYSCORE', 'REV', 'LIMIT', 0, 1, 'WITHSCORES')
  if is_new and count <= SHARES.few_sharers then
    SHARES.notify_others(member) -- so that they ask anew at once, not within an interval
  end
  return '["share",' .. int(ticket) .. ',' .. int(count) .. ',' .. int(rank) .. ','
    .. (-tonumber(oldest[2]) >= entered and 1 or 0) .. ',' .. int(meta.static_cap) .. ',' .. SHARES.domains()
    .. ',' .. SHARES.budgets() .. ']'
end

function SHARES.notify_others(member)
  local others = redis.call('ZRANGE', K.sharers, '(0', '+inf', 'BYSCORE')
  for i = 1, #others do
    if others[i] ~= member then
      SHARD.notify(others[i], '["share"]')
    end
  end
end

function SHARES.forget(member)
  redis.call('ZREM', K.sharers, member, '\0' .. member)
end
