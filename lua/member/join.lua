-- Make a process a member of a shard; the first one gives birth to the shard.
--
-- KEYS
--   meta      hash    schema, generation, run_id; record, whose head is lib/shard/head
--   members   zset    member, by expiry in microseconds
--   events    stream  transitions, the last 8192
--   checks    zset    member, by when to look at it unless its heartbeat comes before
--   intervals hash    member -> a third of its TTL in microseconds
--   suspects  zset    member to whom nobody listens, by since when; 0 once it was heard of
--   others    rest    every other key of the shard
-- ARGV
--   member_id string  a name that was never used before
--   ttl_us    integer how long a heartbeat lasts
--   schema    integer the schema version this member speaks
--   run_id    string  the server's run id
--   generation string the generation to be born with, random
--   keep_ms   integer how long an unused shard is kept
-- Reply
--   JSON [now_us, generation, members]
-- Errors
--   SCHEMA the shard was written with another schema version
-- Cost
--   O(log members) and one PEXPIRE per key; at birth one UNLINK of every key
-- Invariant
--   a member that cannot speak the shard's schema changes nothing; a shard is born empty
-- @bind
-- @include lib/shard/events
-- @include lib/shard/head

local stored = redis.call('HMGET', K.meta, 'schema', 'generation', 'run_id', 'record')
if stored[1] and stored[1] ~= schema then
  return redis.error_reply('SCHEMA ' .. stored[1])
end
if not stored[1] then
  redis.call('UNLINK', unpack(KEYS)) -- what outlived the last generation belongs to nobody
  stored = { schema, generation }
  redis.call('HSET', K.meta, 'schema', schema, 'generation', generation)
end
if stored[3] ~= run_id then
  redis.call('HSET', K.meta, 'run_id', run_id)
end

local head = HEAD.now(stored[4], ttl_us)
now_us = head.now_us
if redis.call('ZADD', K.members, int(now_us + tonumber(ttl_us)), member_id) == 1 then
  emit('member_joined', 'member_id', member_id)
end
EVENTS.write(head)
HEAD.keep(head, member_id, ttl_us, keep_ms)
return '[' .. int(now_us) .. ',"' .. stored[2] .. '",' .. redis.call('ZCARD', K.members) .. ']'
