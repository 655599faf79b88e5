-- The tests' listeners, in the place of lib/listening: a set holds the members to whom nobody listens.
local function is_listened_to(member)
  return redis.call('SISMEMBER', 'fb:test:deaf', member) == 0
end
