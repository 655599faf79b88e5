-- State of a request shard for the length of one call: read once, changed in memory, written once.
local DOMAINS = { 'chat', 'embedding', 'image', 'healthcheck' }
local META_FIELDS = { 'now_us', 'last_us', 'virtual_time', 'places', 'sequence', 'static_cap',
  'in_flight', 'waiters', 'finished', 'max_hold_us' }
local DOMAIN_FIELDS = { 'current_limit', 'effective_max', 'in_flight', 'waiters',
  'blocked_until_us', 'success_streak', 'cuts', 'rate_limit_ceiling', 'consecutive_rate_limits',
  'last_outcome', 'ramp_started_us', 'ramp_us', 'ramp_target', 'granted', 'success',
  'rate_limited', 'provider_failure', 'provider_timeout', 'local_cancelled', 'local_timeout',
  'unexpected_exception', 'member_lost' }
local GROUP_FORGOTTEN_US = 3600 * 1000000
local GROUP_TOUCH_US = 60 * 1000000

local stored_meta = {}
local meta = {}
local stored_domains, domains = {}, {}
local groups = {}
local config

local function load_meta()
  stored_meta = read_hash(K.meta)
  for i = 1, #META_FIELDS do
    meta[META_FIELDS[i]] = tonumber(stored_meta[META_FIELDS[i]]) or 0
  end
  meta.generation = stored_meta.generation
  now_us, meta.last_us = shard_time(stored_meta.now_us, stored_meta.last_us)
  meta.now_us = now_us
end

-- Settings of the resource, needed only when a window is born, moved or capped.
local function settings()
  if not config then
    config = read_hash(K.config)
  end
  return config
end

local function setting(name, default)
  return tonumber(settings()[name]) or default
end

-- A domain's window; `born` is false before its first acquire.
local function domain(name)
  local d = domains[name]
  if not d then
    local stored = read_hash(K['domain_' .. name])
    d = { name = name, born = stored.current_limit ~= nil }
    for i = 1, #DOMAIN_FIELDS do
      local field = DOMAIN_FIELDS[i]
      d[field] = tonumber(stored[field]) or 0
    end
    d.last_outcome = stored.last_outcome or ''
    stored_domains[name], domains[name] = stored, d
    climb_ramp(d)
  end
  return d
end

-- A group of the fair queue: weight, tag, place in line, waiters over all domains, last turn.
local function group(name)
  local g = groups[name]
  if not g then
    local stored = redis.call('HGET', K.groups, name)
    if stored then
      local part = split(stored, '|')
      g = { name = name, weight = tonumber(part[1]), tag = tonumber(part[2]),
        place = tonumber(part[3]), waiting = tonumber(part[4]), touched_us = tonumber(part[5]),
        indexed_us = tonumber(part[6]) }
      if g.waiting == 0 and g.tag and now_us - g.touched_us > GROUP_FORGOTTEN_US then
        g.tag = nil
      end
    else
      g = { name = name, weight = 1, place = 0, waiting = 0, touched_us = now_us }
    end
    groups[name] = g
  end
  return g
end

-- A new group pays for forgetting at most two that had no turn for an hour: memory stays bounded
-- and no call walks the groups.
local function forget_idle_groups()
  local old = redis.call('ZRANGE', K.idle_groups, '-inf', int(now_us - GROUP_FORGOTTEN_US),
    'BYSCORE', 'LIMIT', 0, 2)
  for i = 1, #old do
    local g = group(old[i])
    if g.waiting == 0 and now_us - g.touched_us > GROUP_FORGOTTEN_US then
      g.forgotten = true
      redis.call('HDEL', K.groups, g.name)
      redis.call('ZREM', K.idle_groups, g.name)
    else
      redis.call('ZADD', K.idle_groups, int(g.touched_us), g.name)
    end
  end
end

local function write_groups()
  local changes, n = {}, 0
  for name, g in pairs(groups) do
    if g.dirty and not g.forgotten then
      if not g.indexed_us or g.touched_us - g.indexed_us >= GROUP_TOUCH_US then
        if not g.indexed_us then
          forget_idle_groups()
        end
        g.indexed_us = g.touched_us
        redis.call('ZADD', K.idle_groups, int(g.touched_us), name)
      end
      changes[n + 1] = name
      changes[n + 2] = table.concat({ real(g.weight), g.tag and real(g.tag) or '', int(g.place),
        int(g.waiting), int(g.touched_us), int(g.indexed_us) }, '|')
      n = n + 2
    end
  end
  if n > 0 then
    redis.call('HSET', K.groups, unpack(changes))
  end
end

local function save()
  write_groups()
  for name, d in pairs(domains) do
    if d.born then
      write_changes(K['domain_' .. name], DOMAIN_FIELDS, d, stored_domains[name])
    end
  end
  write_events(meta)
  write_changes(K.meta, META_FIELDS, meta, stored_meta)
end
