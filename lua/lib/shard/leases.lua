-- Leases by id, what each member holds, and how the last ids ended. What a call reads is kept for its
-- length. What a batch of several operations writes is collected, so that it costs one command for each key
-- and not one for each lease; `flush` comes before a range of `held` is read, and with the call's other
-- writes. A lone operation writes at once, which is cheaper.
-- @include lib/write_many
-- @include lib/shard/shard
-- @include lib/shard/damage
-- @include lib/shard/expiry
local LEASES = { finished_kept = 8192 }
local lease_texts = {} -- lease id -> its text as this call leaves it, false for none
local ended_scores = {} -- lease id -> its score in `finished`, false for none
local lease_writes -- of a batch the arguments of the commands that are to come, by what they do

-- Read the leases of a batch by id, and the ends of ids that are to be leases.
function LEASES.read_ahead(ids, new_ids)
  local texts = #ids > 0 and redis.call('HMGET', K.leases, unpack(ids)) or {}
  for i = 1, #texts do
    if lease_texts[ids[i]] == nil then
      lease_texts[ids[i]] = texts[i]
    end
  end
  local scores = #new_ids > 0 and redis.call('ZMSCORE', K.finished, unpack(new_ids)) or {}
  for i = 1, #scores do
    if ended_scores[new_ids[i]] == nil then
      ended_scores[new_ids[i]] = scores[i] and tonumber(scores[i])
    end
  end
end

-- The text of a live lease, false for none.
function LEASES.text(id)
  local text = lease_texts[id]
  if text == nil then
    text = redis.call('HGET', K.leases, id)
    lease_texts[id] = text
  end
  return text
end

-- The end of an id: "released" or "expired", false where no lease of it is known to have ended.
function LEASES.ended(id)
  local score = ended_scores[id]
  if score == nil then
    score = tonumber(redis.call('ZSCORE', K.finished, id)) or false
    ended_scores[id] = score
  end
  return score and (score % 2 == 0 and 'released' or 'expired')
end

-- Prepare for the end of many leases: one command reads them, and one for each key writes.
function LEASES.prepare_ends(ids)
  lease_writes = lease_writes or {}
  LEASES.read_ahead(ids, {})
end

-- A member's live lease; of another id nil and what is known of it, as a result.
function LEASES.own(id, member)
  local text = LEASES.text(id)
  local lease = text and LEASES.parse(text)
  if lease and lease.member == member then
    return lease
  elseif lease and not lease.member then
    DAMAGE.raise('leases') -- else its slot would never be free
  end
  local ended = not lease and LEASES.ended(id)
  if lease or ended == 'expired' then
    return nil, '["stale_lease"]'
  end
  return nil, ended and '["duplicate"]' or '["unknown_lease"]'
end

-- Collect what this call writes.
function LEASES.collect()
  lease_writes = {}
end

-- The order of a flush's commands does not matter, as an id is made or ended only once between two.
function LEASES.make(id, member, text)
  if not lease_writes then
    redis.call('HSET', K.leases, id, text)
    redis.call('ZADD', K.held, '0', member .. '\0lease\0' .. id)
    return
  end
  if ended_scores[id] then
    LEASES.flush()
  end
  lease_texts[id] = text
  local new, held = lease_writes.made, lease_writes.held
  if not new then
    new, held = {}, {}
    lease_writes.made, lease_writes.held = new, held
  end
  local n = #new
  new[n + 1], new[n + 2] = id, text
  held[n + 1], held[n + 2] = '0', member .. '\0lease\0' .. id
end

-- End a lease and remember how: an even score was released, an odd one expired. One that was acquired at this
-- very instant may have been made by this call.
function LEASES.finish(id, lease, is_expired)
  if lease_writes and lease_writes.made and lease.acquired_us == now_text then
    LEASES.flush()
  end
  meta.finished = meta.finished + 1
  local score, entry = meta.finished * 2 + (is_expired and 1 or 0), lease.member .. '\0lease\0' .. id
  lease_texts[id], ended_scores[id] = false, score
  if not lease_writes then
    redis.call('HDEL', K.leases, id)
    redis.call('ZREM', K.held, entry)
    redis.call('ZADD', K.finished, score, id)
    LEASES.bound_finished(1)
    return
  end
  local ended, let_go, finished = lease_writes.ended, lease_writes.let_go, lease_writes.finished
  if not ended then
    ended, let_go, finished = {}, {}, {}
    lease_writes.ended, lease_writes.let_go, lease_writes.finished = ended, let_go, finished
  end
  local n = #ended
  ended[n + 1], let_go[n + 1] = id, entry
  finished[2 * n + 1], finished[2 * n + 2] = score, id
end

-- Remember so many more ended ids.
function LEASES.bound_finished(count)
  if count == meta.finished then
    EXPIRY.with_shard('finished')
  elseif meta.finished % 64 < count then
    redis.call('ZREMRANGEBYRANK', K.finished, 0, -LEASES.finished_kept - 1)
  end
end

-- The entries of a member in `held`: at most `most` leases and other entries of its kind of shard.
function LEASES.held_by(member, most)
  LEASES.flush()
  return redis.call('ZRANGE', K.held, '[' .. member .. '\0', '(' .. member .. '\1', 'BYLEX', 'LIMIT', 0, most)
end

function LEASES.flush()
  if not lease_writes then
    return
  end
  local new, ended = lease_writes.made, lease_writes.ended
  if new then
    write_many('HSET', K.leases, new)
    write_many('ZADD', K.held, lease_writes.held)
    lease_writes.made = nil
  end
  if ended then
    write_many('HDEL', K.leases, ended)
    write_many('ZREM', K.held, lease_writes.let_go)
    write_many('ZADD', K.finished, lease_writes.finished)
    lease_writes.ended = nil
    LEASES.bound_finished(#ended)
  end
end
