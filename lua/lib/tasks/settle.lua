-- What happened by time alone, and who is woken by what changed.
local DUE_PER_CALL = 64
local WOKEN_PER_CALL = 64
local ended_left = 200 -- leases and functions of members that are gone, and those members

local function end_function(name)
  if redis.call('HINCRBY', K.functions, name, -1) <= 0 then
    redis.call('HDEL', K.functions, name)
  end
end

local function end_member(member, why)
  local items = redis.call('ZRANGE', K.held, '[' .. member .. '\0', '(' .. member .. '\1', 'BYLEX',
    'LIMIT', 0, ended_left)
  for i = 1, #items do
    local part = split(items[i], '\0')
    if part[2] == 'lease' then
      lose_lease(part[3], parse_lease(redis.call('HGET', K.leases, part[3])), why)
    else
      redis.call('ZREM', K.held, items[i])
      end_function(part[3])
    end
  end
  ended_left = ended_left - #items
  if ended_left <= 0 then
    return false
  end
  ended_left = ended_left - 1
  redis.call('ZREM', K.members, member)
  redis.call('ZREM', K.idle, member)
  redis.call('HDEL', K.batches, member)
  redis.call('HDEL', K.pushes, member)
  SUSPECTS.forget(member)
  emit('member_expired', 'member_id', member, 'reason', why)
  return true
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
    come_back(due[i])
  end
end

-- Nothing of a pool stands aside for a suspect: it asks anew once it is listened to again.
local function nothing_aside()
  return true
end

local function settle()
  SUSPECTS.clear_heard(nothing_aside)
  SUSPECTS.check(end_member)
  enqueue_due()
  park_what_never_fits()
  unpark()
end

-- The idle members that are listened to, as member and free slots in turn, the most slots first. A
-- suspect is idle no more: it asks anew once it is listened to again.
local function present_idle()
  local idle, present = redis.call('ZRANGE', K.idle, '+inf', '(0', 'BYSCORE', 'REV', 'LIMIT', 0,
    WOKEN_PER_CALL, 'WITHSCORES'), {}
  for i = 1, #idle, 2 do
    if SUSPECTS.is_present(idle[i]) then
      present[#present + 1], present[#present + 2] = idle[i], tonumber(idle[i + 1])
    else
      redis.call('ZREM', K.idle, idle[i])
    end
  end
  return present
end

-- Push the only ready task to an idle member; else wake as many as the ready tasks need: each asks for
-- what it can take, and the one that takes less than there is wakes the next.
local function wake_idle()
  if meta.queued == 0 or redis.call('ZCARD', K.idle) == 0 then
    return
  end
  local head = select_next()
  if not head then
    return
  end
  local idle = present_idle()
  if meta.queued == 1 and idle[1] and PUSHES.push(head, idle[1], idle[2]) then
    return
  end
  local wanted = meta.queued
  for i = 1, #idle, 2 do
    if wanted <= 0 then
      return
    end
    redis.call('ZREM', K.idle, idle[i])
    notify(idle[i], '["work"]')
    wanted = wanted - idle[i + 1]
  end
end

-- Who is idle has been told when the first delayed task is due; if that is another now, it is told anew.
local function tell_due()
  if not next(put_off) then
    return
  end
  local first = redis.call('ZRANGE', K.delayed, 0, 0, 'WITHSCORES')
  if not first[1] or not put_off[first[1]] then
    return
  end
  local idle = redis.call('ZRANGE', K.idle, '+inf', '(0', 'BYSCORE', 'REV', 'LIMIT', 0, WOKEN_PER_CALL)
  for i = 1, #idle do
    if idle[i] ~= member_id then
      notify(idle[i], '["due",' .. int(tonumber(first[2])) .. ']')
    end
  end
end

-- The last look of a call: who stands first without fitting, and who has something to do.
local function settle_after()
  park_what_never_fits()
  unpark()
  note_first()
  wake_idle()
  tell_due()
end

-- The instant at which time alone may change something for this pool, or 0.
local function next_wake_us()
  if meta.queued + meta.delayed + meta.running + meta.parked == 0 then
    return 0
  elseif moves_left <= 0 then
    return now_us
  end
  local wake = tonumber(redis.call('ZRANGE', K.checks, 0, 0, 'WITHSCORES')[2]) or 0
  local due = meta.delayed > 0 and tonumber(redis.call('ZRANGE', K.delayed, 0, 0, 'WITHSCORES')[2])
  if due and (wake == 0 or due < wake) then
    wake = due
  end
  return wake
end
