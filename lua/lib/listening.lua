-- Whether anybody listens on a member's channel: a process that ended has no subscriber, and PUBSUB
-- NUMSUB counts no pattern of an operator. Tests compose scripts with another fragment in its place.
local function is_listened_to(member)
  local channel = string.sub(K.meta, 1, -5) .. 'wake:' .. member
  return tonumber(redis.call('PUBSUB', 'NUMSUB', channel)[2]) > 0
end
