-- Whether anybody listens on a member's channel: a process that ended has no subscriber, and PUBSUB
-- NUMSUB counts no pattern of an operator. Tests compose scripts with another fragment in its place.
-- @include lib/channels

function CHANNELS.is_listened_to(member)
  local channel = string.sub(K.meta, 1, -5) .. 'wake:' .. member
  return tonumber(redis.call('PUBSUB', CHANNELS.count, channel)[2]) > 0
end

-- The members whose channels have a listener: the members that a shard without keys can still find.
function CHANNELS.members()
  local prefix = string.sub(K.meta, 1, -5) .. 'wake:'
  local channels = redis.call('PUBSUB', CHANNELS.list, string.gsub(prefix, '[%[%]*?^\\]', '\\%0') .. '*')
  for i = 1, #channels do
    channels[i] = string.sub(channels[i], #prefix + 1)
  end
  return channels
end
