-- Members to whom nobody listens (spec 06, Members). A suspect is given nothing, as it would have to
-- be taken back, and is expired without waiting for its TTL once it was one for a whole interval. Any
-- call or heartbeat of its own clears it: `suspects` then holds 0 until what stood aside is back.
local SUSPECTS = { silent_intervals = 1.1, cleared_per_call = 64,
  usual_interval_us = 5000000 }
local checks_left = 64 -- of members, in this call
local first_check_us -- of a member, or earlier: its expiry is one of its checks
local caller -- whose call this is; nil for an operator's
local presence = {} -- member -> whether it can be given something in this call

function SUSPECTS.mark(member)
  may_be_new('suspects')
  meta.suspects = meta.suspects + redis.call('ZADD', K.suspects, int(now_us), member)
  emit('member_suspected', 'member_id', member)
end

function SUSPECTS.forget(member)
  redis.call('ZREM', K.checks, member)
  redis.call('HDEL', K.intervals, member)
  if meta.suspects > 0 then
    meta.suspects = meta.suspects - redis.call('ZREM', K.suspects, member)
  end
end

-- Since when a member is a suspect; 0 if it is none.
function SUSPECTS.since(member)
  return meta.suspects > 0 and tonumber(redis.call('ZSCORE', K.suspects, member)) or 0
end

-- Whether a member can be given something: asked before its first grant of this call.
function SUSPECTS.is_present(member)
  if presence[member] == nil then
    local is_suspect = SUSPECTS.since(member) > 0
    presence[member] = member == caller or (not is_suspect and is_listened_to(member))
    if not presence[member] and not is_suspect then
      SUSPECTS.mark(member)
    end
  end
  return presence[member]
end

-- Clear the caller and those that a heartbeat cleared; `restore` puts back what stood aside; it answers false
-- where the rest is left to the next call.
function SUSPECTS.clear_heard(restore)
  if meta.suspects == 0 then
    return
  end
  if caller then
    redis.call('ZADD', K.suspects, 'XX', 0, caller)
  end
  local heard = redis.call('ZRANGE', K.suspects, 0, 0, 'BYSCORE', 'LIMIT', 0,
    SUSPECTS.cleared_per_call)
  for i = 1, #heard do
    if not restore(heard[i]) then
      return
    end
    meta.suspects = meta.suspects - redis.call('ZREM', K.suspects, heard[i])
  end
end

-- A suspect's interval is over. One that is listened to again is cleared; where the shard itself heard
-- nobody for that long, the server's network was away, and nobody is expired early.
function SUSPECTS.is_gone(member, interval_us)
  if is_listened_to(member) then
    redis.call('ZADD', K.suspects, 0, member)
    return false
  elseif meta.silent_us > SUSPECTS.silent_intervals * interval_us then
    redis.call('ZADD', K.suspects, int(now_us), member)
    return false
  end
  return true
end

-- Look at one member whose heartbeat is older than an interval: why it ends, or when to look again.
function SUSPECTS.look_at(member)
  local expiry = tonumber(redis.call('ZSCORE', K.members, member))
  if not expiry or expiry <= now_us then
    return 'member_lost'
  end
  local interval_us = tonumber(redis.call('HGET', K.intervals, member)) or SUSPECTS.usual_interval_us
  local next_us = now_us + interval_us
  if member ~= caller then
    local since = SUSPECTS.since(member)
    if since > 0 and since + interval_us > now_us then
      next_us = since + interval_us
    elseif since > 0 then
      if SUSPECTS.is_gone(member, interval_us) then
        return 'not_listening'
      end
    elseif not is_listened_to(member) then
      SUSPECTS.mark(member)
    end
  end
  return nil, math.min(next_us, expiry)
end

-- End members whose time is over, and look at those that were silent for an interval.
function SUSPECTS.check(end_member)
  while checks_left > 0 do
    local first = redis.call('ZRANGE', K.checks, 0, 0, 'WITHSCORES')
    first_check_us = tonumber(first[2])
    if not first_check_us or first_check_us > now_us then
      return
    end
    checks_left = checks_left - 1
    local why, next_us = SUSPECTS.look_at(first[1])
    if next_us then
      redis.call('ZADD', K.checks, int(next_us), first[1])
    elseif not end_member(first[1], why) then
      return
    end
  end
end
