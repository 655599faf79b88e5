-- Make a process a member of a shard, or confirm that it is one.
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
--   member_id  string  a name that was never used before, or the caller's, which it joined under
--   ttl_us     integer how long a heartbeat lasts
--   schema     integer the schema version this member speaks
--   generation string  the generation that the shard takes if it takes a new one, random
--   known      string  the generation that the caller is a member of; "" for a newcomer
--   known_id   string the run id of the server then; "" for a newcomer
--   keep_ms    integer how long an unused shard is kept
--   process    string  host, pid, program and version of the caller's process, encoded, with blanks between
-- Reply
--   JSON [now_us, generation, members, status, reason, run_id, batch_number]: status is "joined" for a newcomer;
--   else "member", "expired" if the shard ended the membership, or "forgotten" if the shard lost state since: the
--   caller is a member and has to state what it holds. The reason is why the shard was last rebuilt, "" if it never
--   was; batch_number is that of the caller's last batch that the shard remembers, 0 for none
-- Errors
--   SCHEMA the shard was written with another schema version
-- Cost
--   O(log members), six TYPE, an INFO and one PEXPIRE per key; at birth one UNLINK of every key and, of all channels
--   of the server, a look at each; O(members log members) where the shard begins anew
-- Invariant
--   a member that cannot speak the shard's schema changes nothing; an expired membership stays expired; a shard that
--   nobody can remember is born empty
-- @bind
-- @include lib/drop_unreadable
-- @include lib/shard/head
-- @include lib/shard/identity
-- @include lib/shard/recovery

if redis.call('TYPE', K.meta).ok ~= 'hash' then
  redis.call('UNLINK', K.meta)
end
local stored = redis.call('HMGET', K.meta, 'schema', 'generation', 'run_id', 'record', 'reason')
if stored[1] and stored[1] ~= schema then
  return redis.error_reply('SCHEMA ' .. stored[1])
end
local run_id = server_run_id()
local reason = RECOVERY.reason(stored, run_id, drop_unreadable(RECOVERY.written()))
local head = HEAD.now(stored[4], ttl_us, RECOVERY.has_other_clock(stored, run_id))
now_us = head.now_us
local status = known == '' and 'joined' or 'member'
if status == 'member' and not reason and stored[2] == known then
  local expiry = tonumber(redis.call('ZSCORE', K.members, member_id) or 0)
  if expiry <= now_us then
    return '[' .. int(now_us) .. ',"' .. stored[2] .. '",0,"expired","","",0]'
  end
elseif status == 'member' then
  status = 'forgotten'
end

if reason == 'lost' and known == '' and not RECOVERY.is_remembered(member_id) then
  redis.call('UNLINK', unpack(KEYS)) -- what outlived the last generation belongs to nobody
  stored = { schema, generation }
  redis.call('HSET', K.meta, 'schema', schema, 'generation', generation, 'run_id', run_id)
elseif reason then
  RECOVERY.begin(head, reason, stored, { ttl_us = tonumber(ttl_us), generation = generation, schema = schema,
    remembered_id = known_id })
  stored[2], stored[5] = generation, reason
end
IDENTITY.keep(member_id, process, now_us)
if redis.call('ZADD', K.members, int(now_us + tonumber(ttl_us)), member_id) == 1 then
  IDENTITY.emit('member_joined', member_id, split(process, ' '))
end
if status == 'joined' then
  RECOVERY.take_newcomer(member_id)
elseif status == 'forgotten' and head.recovering_us > 0 then
  RECOVERY.take_forgotten(member_id)
end
redis.call('ZADD', K.suspects, 'XX', 0, member_id)
local kept = redis.call('HGET', K.meta, '@' .. member_id) or ''
EVENTS.write(head)
HEAD.keep(head, member_id, ttl_us, keep_ms)
return '[' .. int(now_us) .. ',"' .. stored[2] .. '",' .. redis.call('ZCARD', K.members) .. ',"' .. status
  .. '","' .. string.gsub(stored[5] or '', '[%c"\\]', '') .. '","' .. run_id
  .. '",' .. (string.match(kept, '^%d+ ') or '0') .. ']'
