-- A limit counts as the smallest that its holders claim; one with no claim is 0.
local function claim(resource, holder, limit)
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
    limits[resource] = nil
  end
  return '["claimed",' .. int(smallest or 0) .. ']'
end

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
