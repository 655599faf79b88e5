-- Make a process a member of a shard; the first one gives birth to the shard.
--
-- KEYS
--   meta      hash    clock, schema, generation, run id
--   members   zset    member, by expiry in microseconds
-- ARGV
--   member_id string  a name that was never used before
--   ttl_us    integer how long a heartbeat lasts
--   schema    integer the schema version this member speaks
--   run_id    string  the server's run id
--   generation string the generation to be born with, random
-- Reply
--   JSON [now_us, generation, members]
-- Errors
--   SCHEMA the shard was written with another schema version
-- Cost
--   O(log members)
-- Invariant
--   a member that cannot speak the shard's schema changes nothing
-- @bind
-- @include lib/clock
-- @include lib/time
-- @include lib/int
-- @include lib/read_hash

local meta = read_hash(K.meta)
if meta.schema and meta.schema ~= schema then
  return redis.error_reply('SCHEMA ' .. meta.schema)
end
if not meta.schema then
  meta.generation = generation
  redis.call('HSET', K.meta, 'schema', schema, 'generation', generation)
end
if meta.run_id ~= run_id then
  redis.call('HSET', K.meta, 'run_id', run_id)
end

local now_us, read = shard_time(meta.now_us, meta.last_us)
redis.call('HSET', K.meta, 'now_us', int(now_us), 'last_us', int(read))
redis.call('ZADD', K.members, int(now_us + tonumber(ttl_us)), member_id)
return '[' .. int(now_us) .. ',"' .. meta.generation .. '",' .. redis.call('ZCARD', K.members) .. ']'
