-- Limits of resources, and tasks that ask for more than one (design 04, *The ledger*).
-- @include lib/tasks/queue
local moves_left = 64 -- parked or brought back in this call

-- Claims of limits, each written down by its holder and by its resource, where the smallest is first: after
-- "=" if it counts, after "~" if it rests, as a run's without a driver.
local CLAIMS = {}

function CLAIMS.of_resource(kind, resource, limit, holder)
  return kind .. resource .. '\0' .. string.format('%016.0f', limit) .. '\0' .. holder
end

-- Entries whose first parts are these.
function CLAIMS.under(prefix, most)
  return redis.call('ZRANGE', K.claims, '[' .. prefix .. '\0', '(' .. prefix .. '\1', 'BYLEX',
    'LIMIT', 0, most)
end

-- A limit is the smallest claim that counts; where none counts, the smallest that rests, so that work which
-- is there can end; without a claim it is 0, but for the limit of tasks as such.
function CLAIMS.apply(resource)
  local in_force = LEDGER.limit_of(resource)
  local smallest = CLAIMS.under('=' .. resource, 1)[1] or CLAIMS.under('~' .. resource, 1)[1]
  if smallest then
    limits[resource] = int(tonumber(split(smallest, '\0')[2]))
    EXPIRY.with_shard('limits')
    redis.call('HSET', K.limits, resource, limits[resource])
  else
    redis.call('HDEL', K.limits, resource)
    limits[resource] = resource == 'submission' and LEDGER.unclaimed_submissions or nil
  end
  meta.limited = redis.call('HLEN', K.limits)
  if LEDGER.limit_of(resource) ~= in_force then
    emit('resource_limit_changed', 'resource', resource, 'from', int(in_force), 'to',
      int(LEDGER.limit_of(resource)))
  end
end

-- Replace a holder's claim of a resource; an empty limit takes it back. Both a claim and the limit in force
-- are events where they change. Returns whether the claim has changed.
function CLAIMS.set(resource, holder, limit)
  local old = CLAIMS.under('@' .. holder .. '\0' .. resource, 1)[1]
  local before = old and split(old, '\0')[3] or ''
  if before ~= limit then
    emit('resource_limit_claimed', 'resource', resource, 'holder', holder, 'from', before, 'to', limit,
      'member_id', member_id)
  end
  if old then
    redis.call('ZREM', K.claims, old, CLAIMS.of_resource('=', resource, before, holder),
      CLAIMS.of_resource('~', resource, before, holder))
  end
  if limit ~= '' then
    EXPIRY.with_shard('claims')
    redis.call('ZADD', K.claims, 0, '@' .. holder .. '\0' .. resource .. '\0' .. limit,
      0, CLAIMS.of_resource('=', resource, limit, holder))
  end
  CLAIMS.apply(resource)
  return before ~= limit
end

-- Let the claims of a holder count, or rest.
function CLAIMS.move(holder, from, to)
  local entries = CLAIMS.under('@' .. holder, -1)
  for i = 1, #entries do
    local part = split(entries[i], '\0')
    redis.call('ZREM', K.claims, CLAIMS.of_resource(from, part[2], part[3], holder))
    redis.call('ZADD', K.claims, 0, CLAIMS.of_resource(to, part[2], part[3], holder))
    CLAIMS.apply(part[2])
  end
end

-- A claim must not outlive who made it: it would hold the limit down for everybody.
function CLAIMS.drop(holder)
  local entries = CLAIMS.under('@' .. holder, -1)
  for i = 1, #entries do
    CLAIMS.set(split(entries[i], '\0')[2], holder, '')
  end
end

-- The field of `meta` that notes in which generation a claim was set anew: no memory of before it undoes that.
function CLAIMS.noted(resource, holder)
  return 'claimed\0' .. holder .. '\0' .. resource
end

function CLAIMS.refused(reason, detail)
  return '["refused","' .. reason .. '","' .. detail .. '"]'
end

-- The refusal of a task that could never get its resources; or nil. A resource whose limit was set to 0 is stopped
-- for a while: its tasks are taken, and parked until the limit rises.
function CLAIMS.never_fits(signature)
  local asked = LEDGER.amounts_of(signature)
  for i = 1, #asked.names do
    local resource = asked.names[i]
    local limit = LEDGER.limit_of(resource)
    if not limits[resource] then
      return CLAIMS.refused('unknown_resource', resource)
    elseif limit > 0 and asked.amounts[resource] > limit then
      return CLAIMS.refused('never_fits', resource)
    end
  end
  return nil
end

-- Put first tasks of classes that are not to stand in line beside, by `put`; behind them may be more.
function CLAIMS.move_out(is_meant, put)
  local classes = LINES.waiting(is_meant)
  while #classes > 0 and moves_left > 0 do
    for i = 1, #classes do
      local line = waiting_lines[classes[i]]
      while moves_left > 0 and line.open + line.capped > 0 do
        put(GROUPS.of((LINES.head_of(classes[i], 'open') or LINES.head_of(classes[i], 'capped')).group))
        moves_left = moves_left - 1
      end
    end
    classes = LINES.waiting(is_meant)
  end
end

-- Bring back tasks that wait beside in the sorted set of a name, but those that stay; each kind is looked at once.
function CLAIMS.move_in(name, stays)
  local from = '-'
  while meta[name] > 0 and moves_left > 0 do
    local first = redis.call('ZRANGE', K[name], from, '+', 'BYLEX', 'LIMIT', 0, 1)[1]
    if not first then
      return
    end
    local part = split(first, '\0')
    if stays(part[1]) then
      from = '(' .. part[1] .. '\1'
    else
      redis.call('ZREM', K[name], first)
      meta[name], moves_left = meta[name] - 1, moves_left - 1
      QUEUE.come_back(part[3])
    end
  end
end

function CLASSES.is_unserved(class)
  return not CLASSES.is_served(class)
end

-- Put first tasks beside whose function nobody serves any more, and bring back those that somebody serves.
function CLASSES.sort_served()
  if meta.recovering_us > 0 then
    return -- members have not said yet what they serve
  end
  CLAIMS.move_out(CLASSES.is_unserved, CLASSES.put_beside)
  CLAIMS.move_in('unserved', function(name) return not CLASSES.serves(nil, name) end)
end

-- Park first tasks that ask for more than a limit which was lowered, and bring back what a raised limit allows.
function CLAIMS.sort_parked()
  if meta.recovering_us > 0 then
    return
  end
  CLAIMS.move_out(LEDGER.exceeds_limits, QUEUE.park)
  CLAIMS.move_in('parked', LEDGER.exceeds_limits)
end
