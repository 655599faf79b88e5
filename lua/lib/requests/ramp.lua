-- The startup ramp of a new window (spec 03, The window).

-- What it climbs to: the initial limit, 0 for none, under the present caps.
local function ramp_target(d)
  return d.ramp_target > 0 and math.min(d.ramp_target, d.effective_max) or d.effective_max
end

-- While a new window climbs, its limit is a function of time.
local function climb_ramp(d)
  if d.ramp_us <= 0 then
    return
  end
  local target = ramp_target(d)
  local elapsed = now_us - d.ramp_started_us
  if elapsed >= d.ramp_us then
    d.ramp_us = 0
    d.current_limit = target
  else
    d.current_limit = 1 + math.floor((target - 1) * elapsed / d.ramp_us)
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
