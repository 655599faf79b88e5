-- How a shard that lost state begins anew: it takes a new generation and grants nothing until every member that
-- it knows has stated what it holds, or an interval is over (design 06, *Generations*; docs/adr/0023).
-- @include lib/drop_unreadable
-- @include lib/listening
-- @include lib/server_run_id
-- @include lib/write_many
-- @include lib/shard/events
-- @include lib/shard/head
local RECOVERY = { longest_pause_us = 1000000, -- of a member that connects again
  usual_interval_us = 5000000, -- of a shard whose members are not known
  mark = '', nobody_known = '?' } -- entries of `awaited` that are no members

-- The reason for rebuilding a shard, nil for a whole one. Of `meta` is read: schema, generation, run id, record and
-- the reason that a call gave which found a damage; `run_id` is the server's now.
function RECOVERY.reason(stored, run_id, dropped)
  local members = redis.call('ZCARD', K.members)
  if not stored[1] then
    return 'lost'
  elseif not stored[2] then
    return stored[5] or 'damaged: meta'
  elseif not string.find(stored[2], '^%w+$') then
    return 'damaged: meta' -- no generation that was ever given
  elseif stored[3] ~= run_id then
    return 'restarted'
  elseif dropped then
    return 'damaged: ' .. dropped
  elseif not tonumber(string.match(stored[4] or '', '^%d+')) then
    return 'damaged: record'
  elseif members ~= redis.call('ZCARD', K.checks) or members ~= redis.call('HLEN', K.intervals) then
    return 'damaged: members'
  end
  return nil
end

-- Whether the shard's time was last read from the clock of another node of a cluster. One server that has started
-- anew has its own clock.
function RECOVERY.has_other_clock(stored, run_id)
  return CHANNELS.on_cluster and stored[3] and stored[3] ~= run_id
end

-- Whether a member other than a newcomer listens to a shard of which no key is left.
function RECOVERY.is_remembered(newcomer)
  local listening = CHANNELS.members()
  return #listening > 1 or (listening[1] ~= nil and listening[1] ~= newcomer)
end

-- Keep all members until the recovery is over; a member that only one key still names is restored.
function RECOVERY.keep_members(until_us, interval_us)
  local names, scores, intervals = redis.call('ZRANGE', K.awaited, 0, -1), {}, {}
  for i = 1, #names do
    scores[2 * i - 1], scores[2 * i] = int(until_us), names[i]
    if redis.call('HEXISTS', K.intervals, names[i]) == 0 then
      intervals[#intervals + 1], intervals[#intervals + 2] = names[i], int(interval_us)
    end
  end
  for i = 1, #scores, 2 do
    redis.call('ZADD', K.members, 'GT', scores[i], scores[i + 1])
  end
  write_many('ZADD', K.checks, scores)
  write_many('HSET', K.intervals, intervals)
end

-- The keys that a join and the begin of a rebuild write, each with its type.
function RECOVERY.written()
  return { { 'members', 'zset' }, { 'checks', 'zset' }, { 'intervals', 'hash' }, { 'suspects', 'zset' },
    { 'awaited', 'zset' }, { 'events', 'stream' } }
end

-- Begin a recovery. On a restarted server that kept nothing of the shard, unknown members may join, so the recovery
-- waits for its longest time. On the same server, every member listens and gets a message without notices.
-- A member's score in `awaited` is 0 until it has joined again, then 1.
function RECOVERY.begin(head, reason, stored, run)
  if not head.before_us then
    head.sequence = RECOVERY.last_sequence()
  end
  local interval_us, was_recovering = math.floor(run.ttl_us / 3), head.recovering_us > 0
  head.recovering_us = now_us + math.max(interval_us, math.min(run.ttl_us, RECOVERY.longest_pause_us))
  local still_awaited = redis.call('ZRANGE', K.awaited, 0, -1) -- of a recovery that was not over
  redis.call('ZUNIONSTORE', K.awaited, 2, K.members, K.checks, 'WEIGHTS', 0, 0)
  RECOVERY.keep_members(head.recovering_us, interval_us)
  if redis.call('EXISTS', K.awaited) == 0 and run.remembered_id ~= server_run_id() then
    redis.call('ZADD', K.awaited, 0, RECOVERY.nobody_known)
  end
  redis.call('ZADD', K.awaited, 0, RECOVERY.mark)
  if was_recovering and #still_awaited == 0 then
    redis.call('ZADD', K.awaited, 0, RECOVERY.nobody_known) -- they were lost before all had stated
  end
  for i = 1, #still_awaited do
    redis.call('ZADD', K.awaited, 0, still_awaited[i])
  end
  local listening = CHANNELS.members()
  for i = 1, #listening do
    redis.call('ZADD', K.awaited, 0, listening[i])
    redis.pcall(CHANNELS.publish, string.sub(K.meta, 1, -5) .. 'wake:' .. listening[i], '["' .. run.generation .. '",[]]')
  end
  local reindex = reason == 'restarted' and 0 or 1
  local restored = reason == 'lost' and 0 or head.sequence -- as of when the settings are; events may have outlived them
  redis.call('HSET', K.meta, 'reindex', reindex, 'reason', reason, 'restored', int(restored))
  redis.call('HDEL', K.meta, 'recalled')
  redis.call('HSET', K.meta, 'schema', run.schema, 'generation', run.generation, 'run_id', server_run_id())
  if string.find(reason, 'damaged', 1, true) then
    emit('shard_damaged', 'reason', reason)
  end
  emit('generation_changed', 'from', stored[2] or '', 'to', run.generation, 'reason', reason)
end

-- A newcomer states nothing. Where all that listened were newcomers, as when a fleet starts on a new server, nobody
-- is known to remember the shard, and it opens.
function RECOVERY.take_newcomer(newcomer)
  redis.call('ZREM', K.awaited, newcomer)
  if redis.call('ZCARD', K.awaited) == 2 and redis.call('ZSCORE', K.awaited, RECOVERY.nobody_known) == '0' then
    redis.call('ZREM', K.awaited, RECOVERY.nobody_known)
  end
end

-- A member that remembers the shard states what it holds; others that nobody knows may come, too.
function RECOVERY.take_forgotten(forgotten)
  redis.call('ZADD', K.awaited, 1, forgotten)
  redis.call('ZADD', K.awaited, 'XX', 1, RECOVERY.nobody_known)
end

-- Begin at an operator's call, who is no member; returns the shard's head, which is to be written with its events.
function RECOVERY.begin_for_operator(reason, stored, run)
  drop_unreadable(RECOVERY.written())
  local interval_us, intervals = 0, redis.call('HVALS', K.intervals)
  for i = 1, #intervals do
    interval_us = math.max(interval_us, tonumber(intervals[i]) or 0)
  end
  run.ttl_us = 3 * (interval_us > 0 and interval_us or RECOVERY.usual_interval_us)
  local head = HEAD.now(stored[4], run.ttl_us, RECOVERY.has_other_clock(stored, server_run_id()))
  now_us = head.now_us
  RECOVERY.begin(head, reason, stored, run)
  return head
end

-- The number of the last event where the record of it is gone, so that events stay in order.
function RECOVERY.last_sequence()
  local last = redis.call('XREVRANGE', K.events, '+', '-', 'COUNT', 1)[1]
  local fields = last and last[2] or {}
  for i = 1, #fields, 2 do
    if fields[i] == 'sequence' then
      return tonumber(fields[i + 1]) or 0
    end
  end
  return 0
end
