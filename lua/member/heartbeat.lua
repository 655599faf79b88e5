-- Renew a membership and the life of its shard's keys; nothing else (spec 06, Members).
--
-- KEYS
--   meta      hash    clock
--   members   zset    member, by expiry in microseconds
--   events    stream  transitions, the last 8192
--   checks    zset    member, by when to look at it unless its heartbeat comes before
--   intervals hash    member -> a third of its TTL in microseconds
--   suspects  zset    member to whom nobody listens, by since when; 0 once it was heard of
--   others    rest    every other key of the shard
-- ARGV
--   member_id string  who beats
--   ttl_us    integer how long this heartbeat lasts
--   keep_ms   integer how long an unused shard is kept
-- Reply
--   JSON [now_us, members], or [now_us, 0] if the membership is over
-- Errors
--   none
-- Cost
--   O(log members) and one PEXPIRE per key
-- Invariant
--   an expired membership can never come back to life
-- @bind
-- @include lib/clock
-- @include lib/time
-- @include lib/int
-- @include lib/keep_all
-- @include lib/watch

local stored = redis.call('HMGET', K.meta, 'now_us', 'last_us', 'schema')
local now_us, read = shard_time(stored[1], stored[2])
local expiry = stored[3] and redis.call('ZSCORE', K.members, member_id)
if not expiry or tonumber(expiry) <= now_us then
  return '[' .. int(now_us) .. ',0]'
end
redis.call('HSET', K.meta, 'now_us', int(now_us), 'last_us', int(read))
if WATCH.was_away(now_us - tonumber(stored[1]), ttl_us / 3) then
  redis.call('HSET', K.meta, 'back_us', int(now_us))
end
redis.call('ZADD', K.members, int(now_us + tonumber(ttl_us)), member_id)
WATCH.begin(now_us, member_id, ttl_us)
redis.call('ZADD', K.suspects, 'XX', 0, member_id)
keep_all(keep_ms)
return '[' .. int(now_us) .. ',' .. redis.call('ZCARD', K.members) .. ']'
