-- The tests' listeners, in the place of lib/listening: a set holds the members to whom nobody listens.
-- @include lib/channels

function CHANNELS.is_listened_to(member)
  return redis.call('SISMEMBER', 'fb:test:deaf', member) == 0
end

-- A set holds the members that a shard which lost its keys finds listening.
function CHANNELS.members()
  return redis.call('SMEMBERS', 'fb:test:listening')
end
