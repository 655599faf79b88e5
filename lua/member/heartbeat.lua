-- Renew a membership and the life of its shard's keys; nothing else (design 06, *Members*).
--
-- KEYS
--   meta      hash    schema, generation, run_id; record, whose head is lib/shard/head
--   members   zset    member, by expiry in microseconds
--   events    stream  transitions, the last 8192
--   checks    zset    member, by when to look at it unless its heartbeat comes before
--   intervals hash    member -> a third of its TTL in microseconds
--   suspects  zset    member to whom nobody listens, by since when; 0 once it was heard of
--   awaited   zset    member that a rebuild waits for: 1 once it joined again, else 0; '' always
--   others    rest    every other key of the shard
-- ARGV
--   member_id string  who beats
--   ttl_us    integer how long this heartbeat lasts
--   keep_ms   integer how long an unused shard is kept
-- Reply
--   JSON [now_us, members], or [now_us, 0] if the shard does not know the member: join says why
-- Errors
--   none
-- Cost
--   O(log members) and one PEXPIRE per key
-- Invariant
--   an expired membership can never come back to life
-- @bind
-- @include lib/shard/head

local stored = redis.pcall('HMGET', K.meta, 'schema', 'record') -- an error where the key is of another type
local head = HEAD.now(stored[2], ttl_us)

-- Renew the membership; false if the member must join again first. Raises where a key is of another type.
local function renew()
  local expiry = stored[1] and head.before_us and redis.call('ZSCORE', K.members, member_id)
  if not expiry or tonumber(expiry) <= head.now_us then
    return false
  elseif head.recovering_us > 0 and redis.call('ZSCORE', K.awaited, member_id) == '0' then
    return false -- it has to state what it holds
  end
  redis.call('ZADD', K.suspects, 'XX', 0, member_id)
  redis.call('ZADD', K.members, int(head.now_us + tonumber(ttl_us)), member_id)
  HEAD.keep(head, member_id, ttl_us, keep_ms)
  return true
end

local is_whole, is_member = pcall(renew)
if not is_whole or not is_member then
  return '[' .. int(head.now_us) .. ',0]' -- a join finds what is damaged
end
return '[' .. int(head.now_us) .. ',' .. redis.call('ZCARD', K.members) .. ']'
