-- The adaptive window of a domain (spec 03, The window): arithmetic only, no leases, no queue.

local function ceiling_of(name)
  return math.max(1, math.min(meta.static_cap, setting('max_limit_clamp:' .. name, meta.static_cap)))
end

-- A window is born at its domain's first acquire on a registered resource.
local function bear_window(d, effective_max)
  d.born = true
  d.effective_max = effective_max
  d.current_limit = math.min(setting('initial_limit:' .. d.name, d.effective_max), d.effective_max)
  local ramp_us = setting('startup_ramp_us', 0)
  if ramp_us > 0 then
    d.ramp_us, d.ramp_started_us = ramp_us, now_us
    d.ramp_target = setting('initial_limit:' .. d.name, 0)
    d.current_limit = 1
  end
end

-- The static cap or a clamp moved: lowering lowers the window at once; raising lifts only one that
-- stood at its old maximum and was never cut.
local function recap_window(d)
  local old, new = d.effective_max, ceiling_of(d.name)
  d.effective_max = new
  if d.ramp_us > 0 then
    climb_ramp(d, 'cap')
  elseif new < old then
    set_limit(d, math.min(d.current_limit, new), 'cap')
  elseif new > old and d.current_limit == old and d.rate_limit_ceiling == 0 then
    set_limit(d, new, 'cap')
  end
end

local function cool_down(d, retry_after_us)
  local longest = setting('max_cooldown_us', 300000000)
  local pause = retry_after_us > 0 and retry_after_us or setting('cooldown_us', 2000000)
  if pause > longest then
    emit('request_release_diagnostic', 'domain', d.name, 'code', 'cooldown_clamped', 'asked_us',
      int(pause), 'taken_us', int(longest))
    pause = longest
  end
  d.blocked_until_us = math.max(d.blocked_until_us, now_us + pause)
end

-- One cut per congestion event: only a lease that was admitted since the last cut (or reset) cuts
-- again, and only a cut ends a ramp.
local function on_rate_limited(d, lease, retry_after_us)
  d.consecutive_rate_limits = d.consecutive_rate_limits + 1
  d.success_streak = 0
  cool_down(d, retry_after_us)
  emit('request_rate_limited', 'domain', d.name, 'blocked_until_us', int(d.blocked_until_us))
  if lease.cuts ~= d.cuts then
    return
  end
  d.ramp_us = 0
  d.cuts = d.cuts + 1
  if d.rate_limit_ceiling == 0 then
    d.rate_limit_ceiling = lease.limit
  end
  local factor = setting('multiplicative_decrease_factor', 0.75)
  set_limit(d, math.max(1, math.floor(d.current_limit * factor)), 'rate_limited')
end

local function on_success(d)
  if now_us < d.blocked_until_us then
    return
  end
  d.consecutive_rate_limits = 0
  if d.ramp_us > 0 then
    return
  end
  d.success_streak = d.success_streak + 1
  if d.success_streak < meta.successes_until_increase then
    return
  end
  d.success_streak = 0
  local before = d.current_limit
  if before >= d.effective_max then
    return
  end
  local step = setting('additive_increase_step', 1)
  set_limit(d, math.min(d.effective_max, before + step), 'success')
  if before < d.rate_limit_ceiling and d.current_limit >= d.rate_limit_ceiling then
    emit('request_soft_ceiling_recovered', 'domain', d.name, 'at', int(d.rate_limit_ceiling))
  end
  if d.rate_limit_ceiling > 0 and d.current_limit >= d.effective_max then
    emit('request_fully_recovered', 'domain', d.name, 'at', int(d.effective_max))
    d.rate_limit_ceiling = 0
  end
end

local LOCAL_OUTCOMES = { rate_limited = true, local_cancelled = true, local_timeout = true,
  member_lost = true }

-- An attempt of this domain ended; its lease has already been taken off `in_flight`.
local function on_outcome(d, lease, outcome, retry_after_us)
  d.ended[outcome] = (d.ended[outcome] or 0) + 1
  d.last_outcome = outcome
  if outcome == 'rate_limited' then
    on_rate_limited(d, lease, retry_after_us)
  elseif outcome == 'success' then
    on_success(d)
  end
  if d.in_flight == 0 and not LOCAL_OUTCOMES[outcome] then
    d.consecutive_rate_limits = 0
  end
end
