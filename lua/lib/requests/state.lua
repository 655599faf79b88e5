-- State of a request shard for the length of one call: read once, changed in memory, written once.
local DOMAINS = { 'chat', 'embedding', 'image', 'healthcheck' }
-- Counts of outcomes are not read: what a call adds is added where they stand.
local META_FIELDS = { 'now_us', 'last_us', 'virtual_time', 'places', 'sequence', 'static_cap',
  'in_flight', 'waiters', 'finished', 'max_hold_us', 'budgets', 'token_fair', 'suspects', 'back_us',
  'generation', 'schema', 'lines' }
local META_NUMBERS = 14
-- A window is read in parts, each when it is first needed: what a grant needs, what the end of an
-- attempt needs besides, what is needed where the limit moves, and what a budget by the minute needs.
-- The last field of the second and the third is no number that a call writes back.
local DOMAIN_PARTS = {
  admission = { 'current_limit', 'effective_max', 'in_flight', 'waiters', 'blocked_until_us', 'cuts',
    'ramp_us', 'periods' },
  outcome = { 'success_streak', 'rate_limit_ceiling', 'consecutive_rate_limits', 'row', 'soon_tries',
    'step', 'top', 'quiet_until_us', 'last_outcome' },
  moves = { 'ramp_started_us', 'ramp_target', 'untold_from', 'served_at_refusal', 'quota_until_us',
    'served_at_quota', 'success' },
  minute = { 'budget', 'opened_us', 'served_at_opening', 'used_up_at' },
}
local PART_NUMBERS = { admission = 8, outcome = 8, moves = 6, minute = 4 }
-- Settings that the end of an attempt needs, read at once.
local OUTCOME_SETTINGS = { 'successes_until_increase', 'successes_until_try', 'rule' }

local LIMITS = {} -- how a limit moves: lib/requests/limits
local MINUTE = {} -- budgets by the minute: lib/requests/window_minute
local meta
local domains = {}
local config

-- Tables are made with all their fields at once, which costs half of what growing them does.
local function load_meta()
  local stored = read_numbers(K.meta, META_FIELDS, META_NUMBERS)
  local now, last_us = shard_time(stored[1], stored[2])
  now_us = now
  meta = { now_us = now, last_us = last_us, virtual_time = stored[3] or 0, places = stored[4] or 0,
    sequence = stored[5] or 0, static_cap = stored[6] or 0, in_flight = stored[7] or 0,
    waiters = stored[8] or 0, finished = stored[9] or 0, max_hold_us = stored[10] or 0,
    budgets = stored[11] or 0, token_fair = stored[12] or 0, suspects = stored[13] or 0,
    back_us = stored[14] or 0, generation = stored[15] or nil, schema = stored[16] or nil,
    lines = stored[17] or '', stored = stored, silent_us = now - (stored[1] or now) }
end

-- A setting of the resource, as a number.
local function setting(name, default)
  config = config or {}
  local value = config[name]
  if value == nil then
    value = tonumber(redis.call('HGET', K.config, name)) or false
    config[name] = value
  end
  return value or default
end

-- The name of the rule by which the resource's windows move.
local function rule_name()
  config = config or {}
  if not config.rule then
    local stored = read_numbers(K.config, OUTCOME_SETTINGS, 2)
    config.successes_until_increase, config.successes_until_try = stored[1] or false, stored[2] or false
    config.rule = stored[3] or 'steady'
  end
  return config.rule
end

local function read_part(name, part)
  return read_numbers(K['domain_' .. name], DOMAIN_PARTS[part], PART_NUMBERS[part])
end

-- A domain's window; `born` is false before its first acquire, and what belongs to a later part is
-- false until that is read.
local function domain(name)
  local d = domains[name]
  if not d then
    local stored = read_part(name, 'admission')
    d = { name = name, born = stored[1] ~= nil, ended = {}, stored = { admission = stored },
      current_limit = stored[1] or 0, effective_max = stored[2] or 0, in_flight = stored[3] or 0,
      waiters = stored[4] or 0, blocked_until_us = stored[5] or 0, cuts = stored[6] or 0,
      ramp_us = stored[7] or 0, periods = stored[8] or 0, success_streak = false, rate_limit_ceiling = false,
      consecutive_rate_limits = false, row = false, soon_tries = false, step = false, top = false,
      quiet_until_us = false, last_outcome = false }
    domains[name] = d
    LIMITS.climb(d, 'ramp')
    if d.periods >= MINUTE.enough then
      MINUTE.pass(d)
    end
  end
  return d
end

-- Have what the end of an attempt needs.
local function need_outcome(d)
  if not d.stored.outcome then
    local stored = read_part(d.name, 'outcome')
    d.stored.outcome = stored
    d.success_streak, d.rate_limit_ceiling = stored[1] or 0, stored[2] or 0
    d.consecutive_rate_limits, d.row, d.soon_tries = stored[3] or 0, stored[4] or 0, stored[5] or 0
    d.step, d.top, d.quiet_until_us = stored[6] or 0, stored[7] or 0, stored[8] or 0
    d.last_outcome = stored[9] or ''
  end
end

-- Have what is needed where the limit moves.
local function need_moves(d)
  if not d.stored.moves then
    local stored = read_part(d.name, 'moves')
    d.stored.moves = stored
    d.ramp_started_us, d.ramp_target = stored[1] or 0, stored[2] or 0
    d.untold_from, d.served_at_refusal = stored[3] or 0, stored[4] or 0
    d.quota_until_us, d.served_at_quota = stored[5] or 0, stored[6] or 0
    d.served_before = tonumber(stored[7]) or 0
  end
end

-- Have what a budget by the minute needs.
local function need_minute(d)
  if not d.stored.minute then
    local stored = read_part(d.name, 'minute')
    d.stored.minute = stored
    d.budget, d.opened_us = stored[1] or 0, stored[2] or 0
    d.served_at_opening, d.used_up_at = stored[3] or 0, stored[4] or 0
  end
end

-- How many attempts of a domain were served by now, this call's too.
local function served(d)
  need_moves(d)
  return d.served_before + (d.ended.success or 0)
end

-- Names of the domains in which somebody waits; the others need not be looked at.
local function waiting_domains()
  return string.gmatch(meta.lines, '%a+')
end

local function next_place()
  meta.places = meta.places + 1
  return meta.places
end

-- @include lib/requests/limits
