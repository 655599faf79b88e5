-- Begin a rebuild of a shard because an operator asks for it; nobody has to be a member for it.
--
-- KEYS
--   meta      hash    schema, generation, run_id; record, whose head is lib/shard/head
--   members   zset    member, by expiry in microseconds
--   events    stream  transitions, the last 8192
--   checks    zset    member, by when to look at it unless its heartbeat comes before
--   intervals hash    member -> a third of its TTL in microseconds
--   suspects  zset    member to whom nobody listens, by since when; 0 once it was heard of
--   awaited   zset    member that a rebuild waits for: 1 once it joined again, else 0
--   others    rest    every other key of the shard
-- ARGV
--   schema     integer the schema version that the operator speaks
--   generation string  the generation that the shard takes, random
-- Reply
--   JSON [now_us, until_us, awaited]: when the rebuild is over at the latest, and how many members state what they
--   hold before. The next call on the shard does the rest
-- Errors
--   SCHEMA the shard was written with another schema version; NOSHARD nobody has used it
-- Cost
--   O(members log members), seven TYPE, an INFO, a look at all channels of the server, and a PEXPIRE per key
-- Invariant
--   a shard that nobody has used stays without a key
-- @bind
-- @include lib/shard/recovery

if redis.call('EXISTS', unpack(KEYS)) == 0 and not RECOVERY.is_remembered(nil) then
  return redis.error_reply('NOSHARD ' .. K.meta)
end
if redis.call('TYPE', K.meta).ok ~= 'hash' then
  redis.call('UNLINK', K.meta)
end
local stored = redis.call('HMGET', K.meta, 'schema', 'generation', 'run_id', 'record', 'reason')
if stored[1] and stored[1] ~= schema then
  return redis.error_reply('SCHEMA ' .. stored[1])
end
local head = RECOVERY.begin_for_operator(stored[1] and 'asked for' or 'lost', stored, { generation = generation, schema = schema,
  remembered_id = server_run_id() })
EVENTS.write(head)
HEAD.write(head)
EXPIRY.renew_all(EXPIRY.kept_ms)
local awaited = redis.call('ZCOUNT', K.awaited, 0, 0)
for _, name in ipairs({ RECOVERY.mark, RECOVERY.nobody_known }) do
  awaited = awaited - (redis.call('ZSCORE', K.awaited, name) == '0' and 1 or 0)
end
return '[' .. int(now_us) .. ',' .. int(head.recovering_us) .. ',' .. awaited .. ']'
