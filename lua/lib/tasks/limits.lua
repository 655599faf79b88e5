-- Limits of resources, and tasks that ask for more than one (spec 04, The ledger).
local MOVED_PER_CALL = 64
local moves_left = MOVED_PER_CALL

-- A limit counts as the smallest that its holders claim; without a claim it is 0, but for the limit
-- of tasks as such. Both a claim and the limit in force are told where they change.
local function claim(resource, holder, limit)
  local in_force = limit_of(resource)
  local before = redis.call('HGET', K.claims, resource .. '\0' .. holder) or ''
  if before ~= tostring(limit) then
    emit('resource_limit_claimed', 'resource', resource, 'holder', holder, 'from', before, 'to', limit,
      'member_id', member_id)
  end
  may_be_new('claims')
  may_be_new('limits')
  if limit == '' then
    redis.call('HDEL', K.claims, resource .. '\0' .. holder)
  else
    redis.call('HSET', K.claims, resource .. '\0' .. holder, limit)
  end
  local smallest
  for name, value in pairs(read_hash(K.claims)) do
    if split(name, '\0')[1] == resource then
      smallest = math.min(smallest or tonumber(value), tonumber(value))
    end
  end
  if smallest then
    redis.call('HSET', K.limits, resource, int(smallest))
    limits[resource] = int(smallest)
  else
    redis.call('HDEL', K.limits, resource)
    limits[resource] = resource == 'submission' and UNCLAIMED_SUBMISSIONS or nil
  end
  if limit_of(resource) ~= in_force then
    emit('resource_limit_changed', 'resource', resource, 'from', int(in_force), 'to',
      int(limit_of(resource)))
  end
  return '["claimed",' .. int(limit_of(resource)) .. ']'
end
OPERATIONS.claim = claim

-- A claim must not outlive who made it: it would hold the limit down for everybody.
local function drop_claims(holder)
  local names = redis.call('HKEYS', K.claims)
  for i = 1, #names do
    local part = split(names[i], '\0')
    if part[2] == holder then
      claim(part[1], holder, '')
    end
  end
end

local function refused(reason, detail)
  return '["refused","' .. reason .. '","' .. detail .. '"]'
end

-- What a task asks for and could never get, as a refusal; or nil.
local function never_fits(signature)
  local asked = amounts_of(signature)
  for i = 1, #asked.names do
    local resource = asked.names[i]
    if limit_of(resource) == 0 then
      return refused('unknown_resource', resource)
    elseif asked.amounts[resource] > limit_of(resource) then
      return refused('never_fits', resource)
    end
  end
  return nil
end

local function stuck_signatures()
  local waiting, stuck = waiting_signatures(), {}
  for i = 1, #waiting do
    if exceeds_limits(waiting[i]) then
      stuck[#stuck + 1] = waiting[i]
    end
  end
  return stuck
end

-- Park first tasks that ask for more than a limit which was lowered; behind them may be more.
local function park_what_never_fits()
  local stuck = stuck_signatures()
  while #stuck > 0 and moves_left > 0 do
    for i = 1, #stuck do
      local line = waiting_lines[stuck[i]]
      while moves_left > 0 and line.open + line.capped > 0 do
        park(group((head_of(stuck[i], 'open') or head_of(stuck[i], 'capped')).group))
        moves_left = moves_left - 1
      end
    end
    stuck = stuck_signatures()
  end
end

-- Bring back what a raised limit allows; each kind of ask is looked at once.
local function unpark()
  local from = '-'
  while meta.parked > 0 and moves_left > 0 do
    local first = redis.call('ZRANGE', K.parked, from, '+', 'BYLEX', 'LIMIT', 0, 1)[1]
    if not first then
      return
    end
    local part = split(first, '\0')
    if exceeds_limits(part[1]) then
      from = '(' .. part[1] .. '\1'
    else
      redis.call('ZREM', K.parked, first)
      meta.parked, moves_left = meta.parked - 1, moves_left - 1
      come_back(part[3])
    end
  end
end
