-- The end of members (design 06, *Members*) with their leases and waiters, 200 a call; the next call does the rest.
-- @include lib/split
-- @include lib/shard/identity
-- @include lib/shard/leases
-- @include lib/shard/suspects
local MEMBERS = { most_ended = 200, most_told = 2 }
local ended_left = MEMBERS.most_ended -- of what members that are gone held, of those members, and of overdue holds
local has_left = false -- whether the caller's membership ended in this batch

-- End a member's leases and waiters; true once nothing is left and the member itself is gone. Of each kind of shard are
-- `LEASES.lose`; `MEMBERS.drop`, which ends what else `held` lists; `MEMBERS.end_rest`, which ends at most so many
-- of what it does not list, and returns how many; and `MEMBERS.forget`, for what is kept of a member besides.
function MEMBERS.finish(member, why)
  local items = LEASES.held_by(member, ended_left)
  local parts, lease_ids = {}, {}
  for i = 1, #items do
    local part = split(items[i], '\0')
    parts[i] = part
    lease_ids[#lease_ids + 1] = part[2] == 'lease' and part[3] or nil
  end
  LEASES.prepare_ends(lease_ids)
  for i = 1, #items do
    local part = parts[i]
    if part[2] == 'lease' then
      LEASES.lose(part[3], LEASES.parse(LEASES.text(part[3])), why)
    else
      MEMBERS.drop(items[i], part[2], part[3])
    end
  end
  ended_left = ended_left - #items
  ended_left = ended_left - MEMBERS.end_rest(member, ended_left)
  if ended_left <= 0 then
    return false
  end
  ended_left = ended_left - 1
  redis.call('ZREM', K.members, member)
  redis.call('HDEL', K.meta, '@' .. member)
  SUSPECTS.forget(member)
  MEMBERS.forget(member)
  IDENTITY.emit('member_expired', member, IDENTITY.of(member), 'reason', why)
  IDENTITY.forget(member)
  return true
end

-- End the caller's membership; returns whether all its leases and waiters have ended.
function MEMBERS.leave()
  has_left = has_left or MEMBERS.finish(caller, 'left')
  return has_left
end

-- Notify two members to sweep at once, so that they remember the settings if the server loses them.
-- A shard that recovers gives no memory, and what is set meanwhile counts more than any.
function MEMBERS.notify_set()
  local names = meta.recovering_us > 0 and {} or redis.call('ZRANGE', K.members, 0, MEMBERS.most_told - 1, 'REV')
  for i = 1, #names do
    if names[i] ~= caller then
      SHARD.notify(names[i], '["set"]')
    end
  end
end

-- Whether the caller is a member, once all that were due have been looked at: one whose reply is kept was one
-- when it last called, and is one as long as this call has ended nobody.
function MEMBERS.has_caller()
  if SHARD.has_reply() and ended_left == MEMBERS.most_ended and meta.next_check_us > now_us then
    return true
  end
  local expiry = redis.call('ZSCORE', K.members, caller)
  return expiry and tonumber(expiry) > now_us
end
