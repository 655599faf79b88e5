-- How a window's limit moves, and the startup ramp of a new one (spec 03, The window).

-- Each move is told, with its reason: cap, rate_limited, success, ramp, reset.
local function set_limit(d, limit, reason)
  if limit == d.current_limit then
    return
  end
  local kind = limit > d.current_limit and 'request_limit_increased' or 'request_limit_decreased'
  emit(kind, 'domain', d.name, 'from', int(d.current_limit), 'to', int(limit), 'reason', reason)
  d.current_limit = limit
end

-- What it climbs to: the initial limit, 0 for none, under the present caps.
local function ramp_target(d)
  return d.ramp_target > 0 and math.min(d.ramp_target, d.effective_max) or d.effective_max
end

-- While a new window climbs, its limit is a function of time, told by the first call that sees it
-- moved.
local function climb_ramp(d, reason)
  if d.ramp_us <= 0 then
    return
  end
  local target = ramp_target(d)
  local elapsed = now_us - d.ramp_started_us
  if elapsed >= d.ramp_us then
    d.ramp_us = 0
    set_limit(d, target, reason)
  else
    set_limit(d, 1 + math.floor((target - 1) * elapsed / d.ramp_us), reason)
  end
end

-- When a climbing window next rises by one, or nil.
local function next_ramp_us(d)
  if d.ramp_us <= 0 then
    return nil
  end
  local target = ramp_target(d)
  if target <= 1 then
    return nil
  end
  return d.ramp_started_us + math.ceil(d.current_limit * d.ramp_us / (target - 1))
end
