-- Moves of a window's limit, and the startup ramp of a new one (design 03, *The window*).
-- @include lib/requests/state

function LIMITS.emit_move(d, from, to, reason)
  local kind = to > from and 'request_limit_increased' or 'request_limit_decreased'
  emit(kind, 'domain', d.name, 'from', int(from), 'to', int(to), 'reason', reason, 'algorithm',
    STATE.rule_name())
end

-- A return is many moves by one, emitted as one event: at its end, or before the next move.
function LIMITS.emit_return(d)
  if d.untold_from > 0 then
    LIMITS.emit_move(d, d.untold_from, d.current_limit, 'return')
    d.untold_from = 0
  end
end

-- Each move is an event with its reason: cap, reset, ramp; of steady: return, try, refused, row, hint,
-- outage; of aimd: success, rate_limited.
function LIMITS.set(d, limit, reason)
  if limit ~= d.current_limit then
    LIMITS.emit_return(d)
    LIMITS.emit_move(d, d.current_limit, limit, reason)
    d.current_limit = limit
  end
end

function LIMITS.raise_without_event(d)
  if d.untold_from == 0 then
    d.untold_from = d.current_limit
  end
  d.current_limit = d.current_limit + 1
end

-- The target of a ramp: the initial limit, 0 for none, under the present caps.
function LIMITS.ramp_target(d)
  return d.ramp_target > 0 and math.min(d.ramp_target, d.effective_max) or d.effective_max
end

-- While a new window climbs, its limit is a function of time, told by the first call that sees it
-- moved.
function LIMITS.climb(d, reason)
  if d.ramp_us <= 0 then
    return
  end
  local target = LIMITS.ramp_target(d)
  local elapsed = now_us - d.ramp_started_us
  if elapsed >= d.ramp_us then
    d.ramp_us = 0
    LIMITS.set(d, target, reason)
  else
    LIMITS.set(d, 1 + math.floor((target - 1) * elapsed / d.ramp_us), reason)
  end
end

-- When a climbing window next rises by one, or nil.
function LIMITS.next_climb_us(d)
  if d.ramp_us <= 0 then
    return nil
  end
  local target = LIMITS.ramp_target(d)
  if target <= 1 then
    return nil
  end
  return d.ramp_started_us + math.ceil(d.current_limit * d.ramp_us / (target - 1))
end
