-- State of a request shard for the length of one call: read once, changed in memory, written once.
local DOMAINS = { 'chat', 'embedding', 'image', 'healthcheck' }
-- Counts of outcomes are not read: what a call adds is added where they stand.
local META_FIELDS = { 'now_us', 'last_us', 'virtual_time', 'places', 'sequence', 'static_cap',
  'in_flight', 'waiters', 'finished', 'max_hold_us', 'successes_until_increase', 'budgets',
  'token_fair', 'suspects', 'back_us', 'generation', 'schema', 'lines' }
local META_NUMBERS = 15
local DOMAIN_FIELDS = { 'current_limit', 'effective_max', 'in_flight', 'waiters',
  'blocked_until_us', 'success_streak', 'cuts', 'rate_limit_ceiling', 'consecutive_rate_limits',
  'ramp_started_us', 'ramp_us', 'ramp_target', 'last_outcome' }
local DOMAIN_NUMBERS = 12

local meta
local stored_domains, domains = {}, {}
local config

-- Tables are made with all their fields at once, which costs half of what growing them does.
local function load_meta()
  local stored = read_numbers(K.meta, META_FIELDS, META_NUMBERS)
  local now, last_us = shard_time(stored[1], stored[2])
  now_us = now
  meta = { now_us = now, last_us = last_us, virtual_time = stored[3] or 0, places = stored[4] or 0,
    sequence = stored[5] or 0, static_cap = stored[6] or 0, in_flight = stored[7] or 0,
    waiters = stored[8] or 0, finished = stored[9] or 0, max_hold_us = stored[10] or 0,
    successes_until_increase = stored[11] or 0, budgets = stored[12] or 0,
    token_fair = stored[13] or 0, suspects = stored[14] or 0, back_us = stored[15] or 0,
    generation = stored[16] or nil, schema = stored[17] or nil, lines = stored[18] or '', stored = stored,
    silent_us = now - (stored[1] or now) }
end

-- A setting of the resource, needed only when a window is born, moved or capped.
local function setting(name, default)
  config = config or {}
  local value = config[name]
  if value == nil then
    value = tonumber(redis.call('HGET', K.config, name)) or false
    config[name] = value
  end
  return value or default
end

-- A domain's window; `born` is false before its first acquire.
local function domain(name)
  local d = domains[name]
  if not d then
    local stored = read_numbers(K['domain_' .. name], DOMAIN_FIELDS, DOMAIN_NUMBERS)
    d = { name = name, born = stored[1] ~= nil, current_limit = stored[1] or 0,
      effective_max = stored[2] or 0, in_flight = stored[3] or 0, waiters = stored[4] or 0,
      blocked_until_us = stored[5] or 0, success_streak = stored[6] or 0, cuts = stored[7] or 0,
      rate_limit_ceiling = stored[8] or 0, consecutive_rate_limits = stored[9] or 0,
      ramp_started_us = stored[10] or 0, ramp_us = stored[11] or 0, ramp_target = stored[12] or 0,
      last_outcome = stored[13] or '', ended = {} }
    stored_domains[name], domains[name] = stored, d
    climb_ramp(d, 'ramp')
  end
  return d
end

-- Names of the domains in which somebody waits; the others need not be looked at.
local function waiting_domains()
  return string.gmatch(meta.lines, '%a+')
end

local function next_place()
  meta.places = meta.places + 1
  return meta.places
end
