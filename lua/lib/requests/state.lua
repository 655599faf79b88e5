-- State of a request shard for the length of one call: read once, changed in memory, written once.
-- @include lib/shard/shard
local DOMAINS = { 'chat', 'embedding', 'image', 'healthcheck' }
-- `fields`: what is read of `meta` besides what both kinds of shard read; then where the windows and the settings are
-- among what was read; and the outcomes of attempts, as a window counts them.
local STATE = {
  fields = { 'window_chat', 'window_embedding', 'window_image', 'window_healthcheck', 'settings' },
  place_of_window = { chat = 4, embedding = 5, image = 6, healthcheck = 7 }, place_of_settings = 8,
  outcomes = { 'success', 'rate_limited', 'provider_failure', 'provider_timeout', 'local_cancelled', 'local_timeout',
    'unexpected_exception', 'member_lost' },
}
local RECORD = { often = 10, numbers = 16, 'now_us', 'last_us', 'sequence', 'back_us', 'next_check_us',
  'recovering_us', 'virtual_time', 'places', 'in_flight', 'finished', 'waiters', 'static_cap', 'max_hold_us', 'budgets',
  'token_fair', 'suspects', 'lines' }
-- Of a window also how many attempts ended how, how the last one did, and since when somebody has waited: '' for
-- nobody, and with a minus once that was told.
local WINDOW_RECORD = { often = 3, numbers = 36, 'in_flight', 'waiters', 'success', 'current_limit',
  'effective_max', 'blocked_until_us', 'cuts', 'ramp_us', 'success_streak', 'rate_limit_ceiling',
  'consecutive_rate_limits', 'row', 'soon_tries', 'step', 'top', 'quiet_until_us', 'ramp_started_us',
  'ramp_target', 'untold_from', 'served_at_refusal', 'quota_until_us', 'served_at_quota', 'periods',
  'budget', 'opened_us', 'served_at_opening', 'used_up_at', 'rate_limited', 'provider_failure', 'provider_timeout',
  'local_cancelled', 'local_timeout', 'unexpected_exception', 'member_lost',
  'quota_name', 'token_factor', 'last_outcome', 'queued_since' }

local LIMITS = {} -- how a limit moves: lib/requests/limits
local MINUTE = {} -- budgets by the minute: lib/requests/window_minute
local domains = {}
local settings, window_rule -- as far as this call has asked for them

function STATE.load()
  meta = SHARD.record(RECORD, STATE.fields)
end

function STATE.settings()
  settings = settings or RECORDS.of('settings', read_fields[STATE.place_of_settings])
  return settings
end

-- A setting of the resource, as a number.
function STATE.setting(name, default)
  return tonumber(STATE.settings().values[name]) or default
end

-- Change a setting; "" stands for none.
function STATE.change_setting(name, value)
  STATE.settings()
  window_rule = nil
  settings.values[name], settings.is_changed = value ~= '' and value or nil, true
end

-- The name of the rule by which the resource's windows move.
function STATE.rule_name()
  return STATE.settings().values.rule or 'steady'
end

-- A domain's window; `born` is false before its first acquire.
function STATE.domain(name)
  local d = domains[name]
  if not d then
    d = RECORDS.of('window_' .. name, read_fields[STATE.place_of_window[name]], WINDOW_RECORD)
    d.name, d.born = name, d.text ~= false
    domains[name] = d
    LIMITS.climb(d, 'ramp')
    if d.periods >= MINUTE.enough then
      MINUTE.pass(d)
    end
  end
  return d
end

-- Names of the domains in which somebody waits; the others need not be looked at.
function STATE.waiting_domains()
  return string.gmatch(meta.lines, '%a+')
end
