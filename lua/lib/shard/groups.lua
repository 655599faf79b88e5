-- Groups of a weighted fair queue, kept as small strings: weight, tag, place in line, how many
-- wait, last turn, last entry in the index of idle ones; then what `GROUPS.extra` names; last what its turns
-- cost in the minute of its last turn, and in the minute before.
-- @include lib/write_many
-- @include lib/shard/shard
-- @include lib/shard/expiry
local GROUPS = { pattern = '([^|]*)|([^|]*)|([^|]*)|([^|]*)|([^|]*)|([^|]*)|?(%d*)|?(%d*)', extra = {},
  forgotten_us = 3600 * 1000000, touch_us = 60 * 1000000, minute_us = 60 * 1000000 }
local groups = {}
local group_texts = {} -- as they were read ahead, false for a new one

-- Read groups that a batch will ask for.
function GROUPS.read_ahead(names)
  local texts = #names > 0 and redis.call('HMGET', K.groups, unpack(names)) or {}
  for i = 1, #texts do
    group_texts[names[i]] = texts[i]
  end
end

function GROUPS.is_idle(g)
  return g.waiting == 0 and (tonumber(g.running) or 0) == 0 and (tonumber(g.away) or 0) == 0
    and now_us - g.touched_us > GROUPS.forgotten_us
end

function GROUPS.of(name)
  local g = groups[name]
  if g then
    return g
  end
  local stored = group_texts[name]
  if stored == nil then
    stored = redis.call('HGET', K.groups, name)
  end
  local kept = shard_records.group
  if kept and kept.text == stored and kept.name == name and not GROUPS.is_idle(kept) then
    g, shard_records.group = kept, nil
  elseif stored then
    local weight, tag, place, waiting, touched_us, indexed_us, got, got_before = string.match(stored, GROUPS.pattern)
    local part = #GROUPS.extra > 0 and split(stored, '|')
    if part then
      got, got_before = part[7 + #GROUPS.extra], part[8 + #GROUPS.extra]
    end
    if not tonumber(weight) or not tonumber(place) then
      error('DAMAGED groups', 0)
    end
    g = { name = name, weight = tonumber(weight), tag = tonumber(tag), place = tonumber(place),
      waiting = tonumber(waiting), touched_us = tonumber(touched_us), indexed_us = tonumber(indexed_us),
      got = tonumber(got) or 0, got_before = tonumber(got_before) or 0 }
    for i = 1, #GROUPS.extra do
      g[GROUPS.extra[i]] = part[6 + i]
    end
    if GROUPS.is_idle(g) then
      g.tag = nil
    end
  else
    g = { name = name, weight = 1, place = 0, waiting = 0, touched_us = now_us, got = 0, got_before = 0 }
  end
  groups[name] = g
  return g
end

-- A new group pays for forgetting at most two that had no turn for an hour: memory stays bounded
-- and no call walks the groups.
function GROUPS.forget_idle()
  local old = redis.call('ZRANGE', K.idle_groups, '-inf', int(now_us - GROUPS.forgotten_us),
    'BYSCORE', 'LIMIT', 0, 2)
  for i = 1, #old do
    local g = GROUPS.of(old[i])
    if GROUPS.is_idle(g) and not g.dirty then
      g.forgotten = true
      redis.call('HDEL', K.groups, g.name)
      redis.call('ZREM', K.idle_groups, g.name)
    else
      redis.call('ZADD', K.idle_groups, int(g.touched_us), g.name)
    end
  end
end

function GROUPS.pack(g)
  local part = { real(g.weight), g.tag and real(g.tag) or '', int(g.place), int(g.waiting),
    g.touched_us == now_us and now_text or int(g.touched_us), int(g.indexed_us) }
  for i = 1, #GROUPS.extra do
    part[6 + i] = tostring(g[GROUPS.extra[i]] or '')
  end
  local n = #part
  part[n + 1], part[n + 2] = int(g.got), int(g.got_before)
  return table.concat(part, '|')
end

function GROUPS.write()
  local changed, is_new = {}, false
  for _, g in pairs(groups) do
    if g.dirty then
      changed[#changed + 1] = g
      is_new = is_new or not g.indexed_us
    end
  end
  if is_new then
    EXPIRY.with_shard('groups')
    EXPIRY.with_shard('idle_groups')
    GROUPS.forget_idle()
  end
  local texts = {}
  for i = 1, #changed do
    local g = changed[i]
    if not g.indexed_us or g.touched_us - g.indexed_us >= GROUPS.touch_us then
      g.indexed_us = g.touched_us
      redis.call('ZADD', K.idle_groups, int(g.touched_us), g.name)
    end
    texts[2 * i - 1], texts[2 * i] = g.name, GROUPS.pack(g)
    if #GROUPS.extra == 0 then
      g.dirty, g.text = false, texts[2 * i]
      shard_records.group = g -- the next call's may be the same
    end
  end
  write_many('HSET', K.groups, texts)
end

function GROUPS.next_place()
  meta.places = meta.places + 1
  return meta.places
end

-- Give a group with its first waiter a new place in line, with its kept tag if it has one.
function GROUPS.enter_line(g)
  g.tag = g.tag or meta.virtual_time
  g.place = GROUPS.next_place()
end

-- Note that a group is in use; each minute begins a new count of its turns.
function GROUPS.touch(g)
  local minute, touched = math.floor(now_us / GROUPS.minute_us), math.floor(g.touched_us / GROUPS.minute_us)
  if minute ~= touched then
    g.got, g.got_before = 0, minute == touched + 1 and g.got or 0
  end
  g.touched_us, g.dirty = now_us, true
end

-- Take a turn: time moves to the group's tag, and the group's tag and place move behind it.
function GROUPS.take_turn(g, cost)
  if g.tag and g.tag > meta.virtual_time then
    meta.virtual_time = g.tag
  end
  g.tag = meta.virtual_time + cost / g.weight
  meta.places = meta.places + 1
  g.place = meta.places
  GROUPS.touch(g)
  g.got = g.got + cost
end
