-- The rebuild of a shard that began anew (design 06, *Generations*; ADR 0023): first of all from what is left of it,
-- where that is damaged, then from what its members state. Nothing is granted before it is over.
-- @include lib/drop_unreadable
-- @include lib/shard/leases
-- @include lib/shard/suspects
local REBUILD = {}

-- End the recovery; each kind of shard defines `STATE.open` as its part.
function REBUILD.open()
  meta.recovering_us = 0
  redis.call('UNLINK', K.awaited)
  redis.call('HDEL', K.meta, 'damages')
  STATE.open()
end

-- Whether every awaited member has stated its leases. `awaited` then holds its mark, the empty name, alone. Where the
-- key itself was lost the mark is missing, too, nobody knows which members have not stated, and the rebuild waits on.
function REBUILD.is_stated()
  return redis.call('ZCARD', K.awaited) == 1 and redis.call('ZSCORE', K.awaited, '') ~= false
end

-- Go on with a rebuild; `STATE.reindex` is the kind's part: it works out again what can be worked out of the rest.
function REBUILD.continue()
  if redis.call('HGET', K.meta, 'reindex') == '1' then
    drop_unreadable(DAMAGE.types())
    STATE.reindex()
    meta.is_reindexed = true
    redis.call('HSET', K.meta, 'reindex', 0)
  end
  meta.places = math.max(meta.places, now_us) -- later than whatever members state the age of
  if now_us >= meta.recovering_us or REBUILD.is_stated() then
    REBUILD.open()
  end
end

-- Restore members that only `held` still names; the others are watched as before.
function REBUILD.keep_members(holders)
  for name in pairs(holders) do
    if not redis.call('ZSCORE', K.members, name) then
      redis.call('ZADD', K.members, int(meta.recovering_us), name)
      redis.call('ZADD', K.awaited, 0, name)
      WATCH.begin(meta, name, 3 * SUSPECTS.usual_interval_us)
    end
  end
  redis.call('UNLINK', K.suspects)
  meta.suspects = 0
end

-- Note that the caller's statement is complete.
function REBUILD.note_stated(member)
  if meta.recovering_us > 0 then
    redis.call('ZREM', K.awaited, member)
    if REBUILD.is_stated() then
      REBUILD.open()
    end
  end
end
