-- A member was heard of: unless it is heard of again within its interval, the shard looks at it.
local function watch_from(heard_us, member, life_us)
  local interval_us = math.floor(tonumber(life_us) / 3)
  redis.call('ZADD', K.checks, int(heard_us + interval_us), member)
  redis.call('HSET', K.intervals, member, int(interval_us))
end
