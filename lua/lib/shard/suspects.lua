-- Suspects: members without a listener (design 06, *Members*). A suspect is granted nothing, as it would have to
-- be taken back, and is expired without waiting for its TTL once it was one for a whole interval. Any
-- call or heartbeat of its own clears it: `suspects` then holds 0 until what stood aside is back.
-- @include lib/listening
-- @include lib/shard/shard
-- @include lib/shard/expiry
-- @include lib/shard/watch
-- @include lib/shard/damage
local SUSPECTS = { cleared_per_call = 64, usual_interval_us = 5000000, short_silence_us = 30000,
  few_members = 8 }
local checks_left = 64 -- of members, in this call
local first_check_us -- of a member, or earlier: its expiry is one of its checks; nil if not known
local caller -- whose call this is; nil for an operator's
local presence = {} -- member -> whether it can be given something in this call

function SUSPECTS.set_caller(member)
  caller = member
end

function SUSPECTS.mark(member)
  EXPIRY.with_shard('suspects')
  meta.suspects = meta.suspects + redis.call('ZADD', K.suspects, int(now_us), member)
  emit('member_suspected', 'member_id', member)
end

function SUSPECTS.forget(member)
  redis.call('ZREM', K.checks, member)
  redis.call('HDEL', K.intervals, member)
  first_check_us = nil
  if meta.suspects > 0 then
    meta.suspects = meta.suspects - redis.call('ZREM', K.suspects, member)
  end
end

-- Since when a member is a suspect; 0 if it is none.
function SUSPECTS.since(member)
  return meta.suspects > 0 and tonumber(redis.call('ZSCORE', K.suspects, member)) or 0
end

-- Whether a member can be granted a lease; checked before its first grant of this call.
function SUSPECTS.is_present(member)
  if presence[member] == nil then
    local is_suspect = SUSPECTS.since(member) > 0
    presence[member] = member == caller or (not is_suspect and CHANNELS.is_listened_to(member))
    if not presence[member] and not is_suspect then
      SUSPECTS.mark(member)
    end
  end
  return presence[member]
end

-- Clear a suspect: its waiters return to their places; `restore` puts back what stood aside and
-- answers false where the rest is left to the next call.
function SUSPECTS.clear(member, restore)
  local is_whole = restore(member)
  if is_whole then
    meta.suspects = meta.suspects - redis.call('ZREM', K.suspects, member)
  else
    redis.call('ZADD', K.suspects, 'XX', 0, member)
  end
  return is_whole
end

-- Clear the caller and those that a heartbeat cleared.
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
    if not SUSPECTS.clear(heard[i], restore) then
      return
    end
  end
end

-- Note the first call after a silence of all members. An operator's call does not tell whether
-- members are back, so any silence before it counts.
function SUSPECTS.note_silence()
  if meta.silent_us > SUSPECTS.short_silence_us then
    local interval_us = caller and tonumber(redis.call('HGET', K.intervals, caller)) or 0
    if WATCH.was_away(meta.silent_us, interval_us) then
      meta.back_us = now_us
    end
  end
end

-- Check a suspect: the reason of its end, or the next check. Nobody is expired early at the call of one that
-- nobody listens to: it was cut off itself, and others may be about to come back as it did.
function SUSPECTS.look_at_suspect(member, since, interval_us, restore)
  local due_us = math.max(since, meta.back_us) + interval_us
  if due_us > now_us then
    return nil, due_us
  elseif CHANNELS.is_listened_to(member) then
    SUSPECTS.clear(member, restore)
  elseif caller and not CHANNELS.is_listened_to(caller) then
    meta.back_us = now_us
  else
    return 'not_listening'
  end
  return nil, now_us + interval_us
end

-- Check a member whose heartbeat is older than an interval: the reason of its end, or the next check.
function SUSPECTS.look_at(member, restore)
  local expiry = tonumber(redis.call('ZSCORE', K.members, member) or nil)
  if not expiry then
    DAMAGE.raise('members') -- a member leaves both keys at once
  elseif expiry <= now_us then
    return 'member_lost'
  end
  local interval_us = tonumber(redis.call('HGET', K.intervals, member)) or SUSPECTS.usual_interval_us
  local why, next_us = nil, now_us + interval_us
  if member ~= caller then
    local since = SUSPECTS.since(member)
    if since > 0 then
      why, next_us = SUSPECTS.look_at_suspect(member, since, interval_us, restore)
    elseif not CHANNELS.is_listened_to(member) then
      SUSPECTS.mark(member)
    end
  end
  return why, not why and math.min(next_us, expiry)
end

-- End expired members, and check those that were silent for an interval.
function SUSPECTS.check(finish, restore)
  SUSPECTS.note_silence()
  if meta.next_check_us > now_us or meta.recovering_us > 0 then
    return
  end
  meta.next_check_us = 0
  while checks_left > 0 do
    local first = redis.call('ZRANGE', K.checks, 0, 0, 'WITHSCORES')
    first_check_us = tonumber(first[2])
    if not first_check_us or first_check_us > now_us then
      meta.next_check_us = first_check_us or 0
      return
    end
    checks_left = checks_left - 1
    local why, next_us = SUSPECTS.look_at(first[1], restore)
    if next_us then
      redis.call('ZADD', K.checks, int(next_us), first[1])
    elseif not finish(first[1], why) then
      return
    end
  end
end

-- The instant of the next check of a member, or nil. Where there are many, somebody's call looks in time in any
-- case, so nobody has to wake for each of them.
function SUSPECTS.next_check_us()
  first_check_us = first_check_us or tonumber(redis.call('ZRANGE', K.checks, 0, 0, 'WITHSCORES')[2])
  local soon_us = now_us + SUSPECTS.usual_interval_us / 8
  if first_check_us and first_check_us < soon_us
    and redis.call('ZCARD', K.members) > SUSPECTS.few_members then
    return soon_us
  end
  return first_check_us
end
