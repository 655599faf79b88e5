-- State of a request shard for the length of one call: read once, changed in memory, written once.
local DOMAINS = { 'chat', 'embedding', 'image', 'healthcheck' }
local META_FIELDS = { 'now_us', 'last_us', 'virtual_time', 'places', 'sequence', 'static_cap',
  'in_flight', 'waiters', 'finished', 'max_hold_us' }
local DOMAIN_FIELDS = { 'current_limit', 'effective_max', 'in_flight', 'waiters',
  'blocked_until_us', 'success_streak', 'cuts', 'rate_limit_ceiling', 'consecutive_rate_limits',
  'last_outcome', 'ramp_started_us', 'ramp_us', 'ramp_target', 'granted', 'success',
  'rate_limited', 'provider_failure', 'provider_timeout', 'local_cancelled', 'local_timeout',
  'unexpected_exception', 'member_lost' }

local stored_meta = {}
local meta = {}
local stored_domains, domains = {}, {}
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

local function next_place()
  meta.places = meta.places + 1
  return meta.places
end
