-- The window rule `aimd` (design 03, *The window*): +1 after a streak of successes, times a factor and a
-- cooldown at a refusal.
-- @include lib/requests/limits
local AIMD = { initial_limit = 0, first_step = 0 }

function AIMD.needed()
  return STATE.setting('successes_until_increase', 25)
end

-- Only an accepted cut ends a ramp; a lowered cap is neither cut nor recovery.
function AIMD.on_lowered_cap() end

-- One cut per congestion event: only a lease that was admitted since the last cut (or reset) cuts
-- again, and only a cut ends a ramp.
function AIMD.on_refusal(d, lease, hint_us)
  d.success_streak = 0
  WINDOW.cool_down(d, WINDOW.pause_us(d, hint_us))
  if lease.cuts ~= d.cuts then
    return d.current_limit
  end
  d.ramp_us = 0
  d.cuts = d.cuts + 1
  if d.rate_limit_ceiling == 0 then
    d.rate_limit_ceiling = tonumber(lease.limit)
  end
  local factor = STATE.setting('multiplicative_decrease_factor', 0.75)
  return math.max(1, math.floor(d.current_limit * factor)), 'rate_limited'
end

function AIMD.on_success(d)
  if now_us < d.blocked_until_us then
    return
  end
  d.success_streak = d.success_streak + 1
  if d.success_streak < AIMD.needed() then
    return
  end
  d.success_streak = 0
  local before = d.current_limit
  if before >= d.effective_max then
    return
  end
  local step = STATE.setting('additive_increase_step', 1)
  LIMITS.set(d, math.min(d.effective_max, before + step), 'success')
  if before < d.rate_limit_ceiling and d.current_limit >= d.rate_limit_ceiling then
    emit('request_soft_ceiling_recovered', 'domain', d.name, 'at', int(d.rate_limit_ceiling),
      'algorithm', STATE.rule_name())
  end
  if d.rate_limit_ceiling > 0 and d.current_limit >= d.effective_max then
    emit('request_fully_recovered', 'domain', d.name, 'at', int(d.effective_max), 'algorithm',
      STATE.rule_name())
    d.rate_limit_ceiling = 0
  end
end

-- The next move of the window in words, at most 60 characters.
function AIMD.outlook(d)
  local limit = d.current_limit
  if limit >= d.effective_max then
    return 'holds at ' .. limit .. ', the most that caps allow'
  end
  local rise = math.min(d.effective_max, limit + STATE.setting('additive_increase_step', 1))
  return 'at ' .. limit .. ', goes to ' .. rise .. ' after '
    .. math.max(1, AIMD.needed() - d.success_streak) .. ' more successes'
end
