-- State of a request shard for the length of one call: read once, changed in memory, written once.
local DOMAINS = { 'chat', 'embedding', 'image', 'healthcheck' }
-- Of `meta` besides what both kinds of shard read.
local META_FIELDS = { 'window_chat', 'window_embedding', 'window_image', 'window_healthcheck', 'settings' }
local PLACE_IN_META = { chat = 4, embedding = 5, image = 6, healthcheck = 7, settings = 8 }
local RECORD = { often = 9, numbers = 15, 'now_us', 'last_us', 'sequence', 'back_us', 'next_check_us',
  'virtual_time', 'places', 'in_flight', 'finished', 'waiters', 'static_cap', 'max_hold_us', 'budgets',
  'token_fair', 'suspects', 'lines' }
-- Of a window also how many attempts ended how, and how the last one did.
local WINDOW_RECORD = { often = 3, numbers = 34, 'in_flight', 'waiters', 'success', 'current_limit',
  'effective_max', 'blocked_until_us', 'cuts', 'ramp_us', 'success_streak', 'rate_limit_ceiling',
  'consecutive_rate_limits', 'row', 'soon_tries', 'step', 'top', 'quiet_until_us', 'ramp_started_us',
  'ramp_target', 'untold_from', 'served_at_refusal', 'quota_until_us', 'served_at_quota', 'periods',
  'budget', 'opened_us', 'served_at_opening', 'used_up_at', 'rate_limited', 'provider_failure', 'provider_timeout',
  'local_cancelled', 'local_timeout', 'unexpected_exception', 'member_lost', 'last_outcome' }

local LIMITS = {} -- how a limit moves: lib/requests/limits
local MINUTE = {} -- budgets by the minute: lib/requests/window_minute
local STATE = {}
local meta
local domains = {}
local settings, window_rule -- as far as this call has asked for them

local function load_meta()
  if not read_fields then
    SHARD.read('', META_FIELDS)
  end
  meta = SHARD.record(RECORD)
end

function STATE.settings()
  settings = settings or RECORDS.of('settings', read_fields[PLACE_IN_META.settings])
  return settings
end

-- A setting of the resource, as a number.
local function setting(name, default)
  return tonumber(STATE.settings().values[name]) or default
end

-- Change a setting; "" stands for none.
function STATE.change_setting(name, value)
  STATE.settings()
  window_rule = nil
  settings.values[name], settings.is_changed = value ~= '' and value or nil, true
end

-- The name of the rule by which the resource's windows move.
local function rule_name()
  return STATE.settings().values.rule or 'steady'
end

-- A domain's window; `born` is false before its first acquire.
local function domain(name)
  local d = domains[name]
  if not d then
    d = RECORDS.of('window_' .. name, read_fields[PLACE_IN_META[name]], WINDOW_RECORD)
    d.name, d.born = name, d.text ~= false
    domains[name] = d
    LIMITS.climb(d, 'ramp')
    if d.periods >= MINUTE.enough then
      MINUTE.pass(d)
    end
  end
  return d
end

-- How many attempts of a domain were served by now, this call's too.
local function served(d)
  return d.success
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
