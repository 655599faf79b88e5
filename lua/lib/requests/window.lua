-- The adaptive window of a domain (design 03, *The window*): what its rules share; arithmetic only, no
-- leases, no queue. A rule is a table: `initial_limit` (0: the effective max), `first_step`, `on_success`,
-- `on_refusal`, which returns the limit and why, `on_lowered_cap`, `needed` and `outlook`.
-- @include lib/requests/limits
-- @include lib/requests/refill
local WINDOW = { longest_budget_us = 31 * 86400000000 }

function WINDOW.rule()
  window_rule = window_rule or WINDOW.rules[STATE.rule_name()]
  return window_rule
end

function WINDOW.effective_max(name)
  return math.max(1, math.min(meta.static_cap, STATE.setting('max_limit_clamp:' .. name, meta.static_cap)))
end

-- The target of a return after a fall: the limit that was noted, else all that caps allow.
function WINDOW.ceiling(d)
  local noted = d.rate_limit_ceiling
  return noted > 0 and math.min(noted, d.effective_max) or d.effective_max
end

-- The first limit of a new window.
function WINDOW.first_limit(name, effective_max)
  if STATE.setting('startup_ramp_us', 0) > 0 then
    return 1
  end
  local initial = STATE.setting('initial_limit:' .. name, WINDOW.rule().initial_limit)
  return initial > 0 and math.min(initial, effective_max) or effective_max
end

-- A window is born at its domain's first acquire on a registered resource.
function WINDOW.create(d, effective_max)
  d.born = true
  d.effective_max = effective_max
  d.current_limit = WINDOW.first_limit(d.name, effective_max)
  d.step = WINDOW.rule().first_step
  local ramp_us = STATE.setting('startup_ramp_us', 0)
  if ramp_us > 0 then
    d.ramp_us, d.ramp_started_us = ramp_us, now_us
    d.ramp_target = STATE.setting('initial_limit:' .. d.name, WINDOW.rule().initial_limit)
  end
end

-- Born anew, but for the number of cuts, which goes on by one, so that no lease admitted before cuts
-- the new window; and for the cooldown.
function WINDOW.reset(d, effective_max)
  LIMITS.emit_return(d)
  d.ramp_us, d.rate_limit_ceiling, d.success_streak, d.consecutive_rate_limits = 0, 0, 0, 0
  d.row, d.soon_tries, d.top, d.quiet_until_us = 0, 0, 0, 0
  d.served_at_refusal, d.quota_until_us = d.success, 0
  d.cuts = d.cuts + 1
  d.quota_name, d.token_factor = 0, 0
  MINUTE.forget(d)
  WINDOW.create(d, effective_max)
end

-- The static cap or a clamp moved: lowering lowers the window at once; raising lifts only one that
-- stood at its old maximum with no ceiling noted. What was noted stays noted; where nothing is, what is
-- allowed now has never been served, as at birth.
function WINDOW.recap(d)
  local old, new = d.effective_max, WINDOW.effective_max(d.name)
  d.effective_max = new
  if d.ramp_us > 0 then
    LIMITS.climb(d, 'cap')
  elseif new < d.current_limit then
    LIMITS.set(d, new, 'cap')
    WINDOW.rule().on_lowered_cap(d)
  elseif new > old and d.rate_limit_ceiling == 0 then
    if d.current_limit == old then
      LIMITS.set(d, new, 'cap')
    end
    d.step = WINDOW.rule().first_step
  end
end

-- A pause within its bounds; a longer one is recorded as clamped.
function WINDOW.believed(d, pause_us, longest_us)
  if pause_us > longest_us then
    emit('request_release_diagnostic', 'domain', d.name, 'code', 'cooldown_clamped', 'asked_us',
      int(pause_us), 'taken_us', int(longest_us))
    return longest_us
  end
  return pause_us
end

-- The pause that a refusal states, else the configured one.
function WINDOW.pause_us(d, hint_us)
  local pause_us = hint_us > 0 and hint_us or STATE.setting('cooldown_us', 2000000)
  return WINDOW.believed(d, pause_us, STATE.setting('max_cooldown_us', 300000000))
end

-- A cooldown is only ever extended.
function WINDOW.cool_down(d, pause_us)
  d.blocked_until_us = math.max(d.blocked_until_us, now_us + pause_us)
end

-- A refusal that names a budget blocks until its refill. Where a lease granted since the last such
-- refill is refused so again, with nothing served between, it is not the budget alone that refuses:
-- false.
function WINDOW.wait_for_budget(d, lease, refill_us)
  local is_answered = d.quota_until_us == 0 or tonumber(lease.acquired_us) < d.quota_until_us
    or d.success > d.served_at_quota
  WINDOW.cool_down(d, WINDOW.believed(d, refill_us, WINDOW.longest_budget_us))
  d.quota_until_us, d.served_at_quota = d.blocked_until_us, d.success
  return is_answered
end

function WINDOW.on_rate_limited(d, lease, hint_us, scope)
  d.consecutive_rate_limits = d.consecutive_rate_limits + 1
  local limit, reason = d.current_limit, nil
  local names_budget = REFILL.note(d, scope) and hint_us > 0
  if not names_budget or not WINDOW.wait_for_budget(d, lease, hint_us) then
    limit, reason = WINDOW.rule().on_refusal(d, lease, names_budget and 0 or hint_us)
    MINUTE.on_refusal(d)
  end
  emit('request_rate_limited', 'domain', d.name, 'blocked_until_us', int(d.blocked_until_us), 'scope',
    string.match(scope, '^%a*'), 'algorithm', STATE.rule_name())
  LIMITS.set(d, limit, reason)
end

-- @include lib/requests/window_minute
-- @include lib/requests/window_aimd
-- @include lib/requests/window_steady
WINDOW.rules = { aimd = AIMD, steady = STEADY }

-- The next move of the window in words, at most 60 characters.
function WINDOW.outlook(d)
  local cooldown_us, hint_us = d.blocked_until_us - now_us, d.quiet_until_us - now_us
  local minutely = MINUTE.outlook(d)
  if minutely then
    return minutely
  elseif REFILL.outlook(d) then
    return REFILL.outlook(d)
  elseif cooldown_us > 0 then
    return string.format('cools down for %.1f s, then goes on at %d', cooldown_us / 1e6, d.current_limit)
  elseif d.ramp_us > 0 then
    return string.format('climbs from %d to %d within %.1f s', d.current_limit, LIMITS.ramp_target(d),
      (d.ramp_started_us + d.ramp_us - now_us) / 1e6)
  elseif hint_us > 0 and STATE.rule_name() == 'steady' then
    return string.format('holds at %d for %.1f s, as the provider asked', d.current_limit, hint_us / 1e6)
  end
  return WINDOW.rule().outlook(d)
end

WINDOW.keeps_row = { rate_limited = true, local_cancelled = true, local_timeout = true,
  member_lost = true }

-- An attempt of this domain ended; its lease has already been taken off `in_flight`.
function WINDOW.on_outcome(d, lease, outcome, hint_us, scope)
  d[outcome] = d[outcome] + 1
  if d.last_outcome ~= outcome then
    d.last_outcome = outcome
  end
  if outcome == 'success' then
    local row = d.consecutive_rate_limits
    if row > 0 and now_us >= d.blocked_until_us then
      d.consecutive_rate_limits = 0
    end
    if d.ramp_us == 0 then
      WINDOW.rule().on_success(d, lease, row)
    end
  elseif outcome == 'rate_limited' then
    WINDOW.on_rate_limited(d, lease, hint_us, scope)
  end
  if d.consecutive_rate_limits > 0 and d.in_flight == 0 and not WINDOW.keeps_row[outcome] then
    d.consecutive_rate_limits = 0
  end
end
