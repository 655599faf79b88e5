-- What happened by time alone, and who is woken by what changed.
local ENDED_PER_CALL = 200
local DUE_PER_CALL = 64
local WOKEN_PER_CALL = 64
local ended_left = ENDED_PER_CALL

local function end_member(member, why)
  local items = redis.call('ZRANGE', K.held, '[' .. member .. '\0', '(' .. member .. '\1', 'BYLEX',
    'LIMIT', 0, ended_left)
  for i = 1, #items do
    local id = split(items[i], '\0')[3]
    lose_lease(id, parse_lease(redis.call('HGET', K.leases, id)), why)
  end
  ended_left = ended_left - #items
  if ended_left <= 0 then
    return false
  end
  redis.call('ZREM', K.members, member)
  redis.call('ZREM', K.idle, member)
  redis.call('HDEL', K.batches, member)
  emit('member_expired', 'member_id', member, 'reason', why)
  return true
end

local function expire_members()
  while ended_left > 0 do
    local first = redis.call('ZRANGE', K.members, 0, 0, 'WITHSCORES')
    if not first[1] or tonumber(first[2]) > now_us then
      return
    end
    end_member(first[1], 'member_lost')
  end
end

local function enqueue_due()
  if meta.delayed == 0 then
    return
  end
  local due = redis.call('ZRANGE', K.delayed, '-inf', int(now_us), 'BYSCORE', 'LIMIT', 0,
    DUE_PER_CALL)
  for i = 1, #due do
    redis.call('ZREM', K.delayed, due[i])
    meta.delayed = meta.delayed - 1
    enqueue(due[i], read_task(due[i]))
  end
end

local function settle()
  expire_members()
  enqueue_due()
end

-- Wake as many idle members as the ready tasks need; each asks for what it can take, and the one
-- that takes less than there is wakes the next.
local function wake_idle()
  if meta.queued == 0 or not select_next() then
    return
  end
  local idle = redis.call('ZRANGE', K.idle, '+inf', '(0', 'BYSCORE', 'REV', 'LIMIT', 0,
    WOKEN_PER_CALL, 'WITHSCORES')
  local wanted = meta.queued
  for i = 1, #idle, 2 do
    if wanted <= 0 then
      return
    end
    redis.call('ZREM', K.idle, idle[i])
    notify(idle[i], '["work"]')
    wanted = wanted - tonumber(idle[i + 1])
  end
end

-- The instant at which time alone may change something for this pool, or 0.
local function next_wake_us()
  if meta.queued + meta.delayed + meta.running == 0 then
    return 0
  end
  local wake = tonumber(redis.call('ZRANGE', K.members, 0, 0, 'WITHSCORES')[2]) or 0
  local due = tonumber(redis.call('ZRANGE', K.delayed, 0, 0, 'WITHSCORES')[2])
  if due and (wake == 0 or due < wake) then
    wake = due
  end
  if ended_left <= 0 then
    wake = now_us
  end
  return wake
end
