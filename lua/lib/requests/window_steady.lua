-- The window rule `steady` (docs/window.md): it holds at what is being served. Additive increase: one
-- more after many successes of a full window, then a doubled step for each round that confirms it.
-- Multiplicative decrease: to what is in flight, and by 1, 1, 2, 4 ... down to a half where refusals
-- follow each other. `fresh` is a lease granted since the last fresh refusal: only such ones tell of
-- the window as it is now, so the burst of one instant counts once.
--
-- Of a window: `success_streak` is the credit, `rate_limit_ceiling` what was served before, `row` the
-- fresh refusals with nothing served between, `soon_tries` how many tries still come sooner, as the
-- window fell, `step` the last step of the try under way, 0 without one, `top` where the ceiling settles
-- with the next fresh success, 0 for nowhere, `quiet_until_us` the end of a provider's hint.
-- @include lib/requests/limits
-- @include lib/requests/window_minute
local STEADY = { initial_limit = 4, first_step = 1, tries_after_fall = 3, sooner_after_fall = 3,
  most_doublings = 30, refusals_of_noise = 2, crowded_part = 8 }

-- The climb of a new window is a try whose ceiling nobody knows yet: what ends it is what is refused.
function STEADY.is_climbing(d)
  return d.step > 0 and d.rate_limit_ceiling == 0
end

function STEADY.note_ceiling(d, limit)
  d.rate_limit_ceiling = limit < d.effective_max and limit or 0
end

function STEADY.successes_until_try()
  return STATE.setting('successes_until_try', 150)
end

function STEADY.round()
  return STATE.setting('round_successes', 24)
end

function STEADY.end_try(d)
  d.success_streak, d.step = 0, 0
end

STEADY.on_lowered_cap = STEADY.end_try

-- The number of credits for the next step up.
function STEADY.needed(d)
  if d.step > 0 then
    return math.max(STEADY.round(), d.current_limit)
  end
  local usual = STEADY.successes_until_try()
  return d.soon_tries > 0 and math.max(1, math.floor(usual / STEADY.sooner_after_fall)) or usual
end

-- At the ceiling a success of a full window is one credit; enough of them are a step up, which the
-- next round confirms.
function STEADY.earn(d)
  d.success_streak = d.success_streak + 1
  if d.success_streak < STEADY.needed(d) then
    return
  end
  local limit, noted = d.current_limit, d.rate_limit_ceiling
  d.success_streak = 0
  STEADY.note_ceiling(d, limit)
  if limit >= d.effective_max then
    d.step = 0
    if noted > 0 then
      emit('request_fully_recovered', 'domain', d.name, 'at', int(d.effective_max), 'algorithm',
        STATE.rule_name())
    end
    return
  end
  d.step = math.max(1, math.min(2 * d.step, math.floor(limit / 4)))
  LIMITS.set(d, math.min(d.effective_max, limit + d.step), 'try')
end

-- Below the ceiling each success of a full window adds one: the window doubles each call's time.
function STEADY.come_back(d, ceiling)
  LIMITS.raise_without_event(d)
  if d.current_limit >= ceiling then
    LIMITS.emit_return(d)
    if d.rate_limit_ceiling > 0 then
      emit('request_soft_ceiling_recovered', 'domain', d.name, 'at', int(ceiling), 'algorithm',
        STATE.rule_name())
    end
  end
end

function STEADY.on_success(d, lease, row)
  MINUTE.on_success(d, lease, row)
  local is_fresh = lease.cuts == d.cuts
  if is_fresh and (d.row > 0 or d.top > 0) then
    d.row = 0
    if d.top > 0 then
      STEADY.note_ceiling(d, math.max(d.current_limit, d.top))
      d.top = 0
    end
  end
  local is_full = d.in_flight + 1 >= d.current_limit
  if now_us < d.blocked_until_us or now_us < d.quiet_until_us or not is_full then
    return
  end
  local ceiling = WINDOW.ceiling(d)
  if d.current_limit >= ceiling then
    if ceiling < d.effective_max or d.step > 0 then
      STEADY.earn(d)
    end
  elseif is_fresh then
    STEADY.come_back(d, ceiling)
  end
end

-- Allow further moves: after a fall some tries come sooner.
function STEADY.note_fall(d, left)
  if left < math.floor(WINDOW.ceiling(d) * 4 / 5) then
    d.soon_tries = STEADY.tries_after_fall
  end
end

-- Note the evidence of a fresh refusal: it ends a try; or it is a lone one, at what was served
-- before, and taken for the provider's noise; or it follows another, so the limit has moved. `since` were
-- served since the last one. Returns whether the ceiling settles at what is in flight.
function STEADY.note_refusal(d, left, since)
  local ceiling = WINDOW.ceiling(d)
  local is_lone = since >= STEADY.round()
  local ends_try = left + 1 > ceiling or left + 1 >= d.current_limit and STEADY.is_climbing(d)
  d.cuts, d.row, d.served_at_refusal = d.cuts + 1, d.row + 1, d.success
  if ends_try and d.step > 0 then
    d.soon_tries = math.max(0, d.soon_tries - 1)
  end
  if not is_lone then
    STEADY.note_fall(d, left)
  end
  local settles = ends_try or not is_lone
  if settles then
    STEADY.end_try(d)
  end
  return settles
end

-- The ceiling is to be what is in flight, when serving goes on; where nothing is and nothing was
-- learned before, the window climbs as a new one.
function STEADY.settle(d, left)
  if d.top == 0 then
    STEADY.end_try(d)
  end
  d.top = left
  if left == 0 and d.rate_limit_ceiling == 0 then
    d.step = STEADY.first_step
  end
end

-- A full window falls to what is in flight, so that a refusal grants nobody; the fall of a row
-- doubles. One that something else holds back falls by a quarter.
function STEADY.fallen(d, left, is_fresh)
  local limit = d.current_limit
  if left + 1 >= limit then
    local fall = is_fresh and 2 ^ math.min(STEADY.most_doublings, math.max(0, d.row - 2)) or 0
    return math.max(1, math.min(left, math.max(math.floor(limit / 2), limit - fall)))
  end
  return is_fresh and math.max(1, left, math.floor(limit * 0.75)) or limit
end

-- Whether a hint is meant for everyone: three fresh refusals in a row, the last one after so few were
-- served that hardly any of those granted since the one before can have been admitted. Refusals are
-- answered at once and successes take a call's time, so a row alone says little: in a call's time the
-- whole window is granted anew, and at an edge that is not sharp some of it is refused. A hint shorter
-- than a cooldown is no reason for one: by then the window has found what is served.
function STEADY.means_everyone(d, since, pause_us)
  local few = math.max(1, math.floor(d.current_limit / STEADY.crowded_part))
  return d.row > STEADY.refusals_of_noise and since <= few
    and pause_us >= STATE.setting('cooldown_us', 2000000)
end

-- A hint stops tries and returns; one that means everyone, or that comes where nobody else is in
-- flight, stops the calls, too.
function STEADY.on_refusal(d, lease, hint_us)
  local left, is_fresh = d.in_flight, lease.cuts == d.cuts
  local pause_us = (hint_us > 0 or left == 0) and WINDOW.pause_us(d, hint_us) or 0
  if left == 0 then
    WINDOW.cool_down(d, pause_us)
  end
  if d.ramp_us > 0 then
    if not is_fresh then
      return d.current_limit
    end
    d.ramp_us = 0 -- a ramp is a climb, too
  end
  local since = d.success - d.served_at_refusal
  local settles = is_fresh and STEADY.note_refusal(d, left, since) or d.top > 0
  if d.consecutive_rate_limits > STEADY.refusals_of_noise then
    STEADY.note_fall(d, left)
    settles = true
  end
  if settles then
    STEADY.settle(d, left)
  end
  local limit, reason = STEADY.fallen(d, left, is_fresh), is_fresh and d.row > 1 and 'row' or 'refused'
  if hint_us > 0 then
    d.quiet_until_us = math.max(d.quiet_until_us, now_us + pause_us)
    if is_fresh and STEADY.means_everyone(d, since, pause_us) then
      d.row, limit, reason = 0, math.max(1, math.floor(limit / 4)), 'hint'
      WINDOW.cool_down(d, pause_us)
    end
  end
  if left == 0 then
    return 1, 'outage'
  end
  return limit, reason
end

-- The next move of the window in words, at most 60 characters.
function STEADY.outlook(d)
  local limit, ceiling = d.current_limit, WINDOW.ceiling(d)
  local more = math.max(1, STEADY.needed(d) - d.success_streak)
  if limit < ceiling then
    local how = STEADY.is_climbing(d) and 'climbs from ' or 'returns from '
    return how .. limit .. ' to ' .. ceiling .. ', by 1 a success'
  elseif d.step > 0 then
    return 'tries ' .. limit .. ', confirmed after ' .. more .. ' more successes'
  elseif ceiling >= d.effective_max then
    return 'holds at ' .. limit .. ', the most that caps allow'
  end
  return 'holds at ' .. limit .. ', tries ' .. limit + 1 .. ' after ' .. more .. ' more successes'
end
