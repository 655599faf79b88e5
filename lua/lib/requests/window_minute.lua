-- A learned budget by the minute, which the provider does not publish: a part of the rule `steady`
-- (docs/window.md). An opening is the first success after nobody was served. Openings a minute apart
-- with about the same number served between them, three minutes in a row, are a budget. From then on the
-- calls in flight end where it is used up, and one goes beyond it alone: refused, everyone waits for the
-- end of the minute; served, it was too low or there is none, so it rises, and some such end it.
--
-- Of a window: `periods` are the minutes that were alike. At three of them the budget is believed, and
-- `periods` is five less what spoke against it since an alike minute; below three it is dropped. `budget`
-- is what may be served in a minute, `opened_us` when the present one began, and `served_at_opening` what
-- had been served by then; `used_up_at` what may be served in this minute alone, 0 where that is the budget.
-- @include lib/requests/state
MINUTE.length_us = 60000000
MINUTE.slack_us = 5000000 -- an opening is found up to a cooldown or a hint late
MINUTE.enough, MINUTE.most = 3, 5 -- minutes that are evidence enough; and what they count for
MINUTE.fewest = 8 -- served in a minute: of fewer, any two minutes are alike

function MINUTE.is_learned(d)
  return d.periods >= MINUTE.enough and STATE.rule_name() == 'steady'
end

-- Note the evidence; learning or dropping a budget is an event with its reason.
function MINUTE.note(d, periods, reason, budget)
  local was_learned = d.periods >= MINUTE.enough
  d.periods = periods
  if was_learned ~= (periods >= MINUTE.enough) then
    emit(was_learned and 'request_minute_budget_dropped' or 'request_minute_budget_learned', 'domain',
      d.name, 'budget', int(was_learned and d.budget or budget), 'reason', reason, 'algorithm', STATE.rule_name())
  end
  d.budget = budget
end

-- A minute ends by itself where nobody was refused as it ended. That nobody saw its end speaks against
-- the budget, which so expires. Where calls are being refused its end is the opening, which may come late,
-- and is known when the call that found it comes back.
function MINUTE.pass(d)
  local late_us = now_us - d.opened_us - MINUTE.length_us
  if late_us < 0 then
    return
  end
  if d.consecutive_rate_limits > 0 then
    late_us = d.in_flight == 0 and late_us - MINUTE.slack_us or -1
  end
  if late_us >= 0 then
    local n = math.min(math.floor(late_us / MINUTE.length_us), d.periods - MINUTE.enough) + 1
    d.opened_us, d.served_at_opening, d.used_up_at = d.opened_us + n * MINUTE.length_us, d.success, 0
    MINUTE.note(d, d.periods - n, 'unused', d.budget)
  end
end

-- The calls served in the present minute, nil if that is over.
function MINUTE.used(d)
  return now_us < d.opened_us + MINUTE.length_us and d.success - d.served_at_opening or nil
end

-- Whether calls have to end before the next one goes: with those in flight the minute is used up.
function MINUTE.is_used_up(d)
  if d.in_flight == 0 or not MINUTE.is_learned(d) then
    return false
  end
  local used = MINUTE.used(d)
  local most = d.used_up_at > 0 and math.min(d.used_up_at, d.budget) or d.budget
  return used ~= nil and used + d.in_flight >= most
end

-- The instant at which time ends that, or nil.
function MINUTE.next_opening_us(d)
  return MINUTE.is_used_up(d) and d.opened_us + MINUTE.length_us or nil
end

-- The first that was served after nobody was: the minute before it is over. Where hardly anything was
-- served since the opening just before, that one goes on: a sliding minute opens bit by bit.
function MINUTE.open(d, lease)
  local before, acquired_us = d.success - 1, tonumber(lease.acquired_us)
  local used, apart_us = before - d.served_at_opening, acquired_us - d.opened_us
  if used < MINUTE.fewest and apart_us <= MINUTE.slack_us then
    return
  end
  local differs = math.abs(used - d.budget) > math.max(2, math.floor(d.budget / 10))
  local periods, reason = d.periods + 1, 'alike'
  if math.abs(apart_us - MINUTE.length_us) > MINUTE.slack_us or used < MINUTE.fewest then
    periods, reason = 0, 'uneven'
  elseif d.periods > 0 and differs then
    periods, reason = 1, 'uneven'
  elseif periods >= MINUTE.enough then
    periods = MINUTE.most
  end
  MINUTE.note(d, periods, reason, used)
  d.opened_us, d.served_at_opening, d.used_up_at = acquired_us, before, 0
end

-- The step of a budget after a call beyond it was served: a hundredth, then twice that.
function MINUTE.more(d)
  return math.max(2, math.floor(d.budget / 100)) * 2 ^ (MINUTE.most - d.periods)
end

-- `row`: how many were refused since the success before, without any served between.
function MINUTE.on_success(d, lease, row)
  if row > 0 and lease.cuts == d.cuts and d.current_limit == 1 and d.in_flight == 0 then
    MINUTE.open(d, lease)
  elseif MINUTE.is_learned(d) then
    local used = MINUTE.used(d) or 0
    if used > d.used_up_at then
      d.used_up_at = 0
    end
    if used > d.budget then
      MINUTE.note(d, d.periods - 1, 'exceeded', d.budget + MINUTE.more(d))
    end
  end
end

-- About the budget, a second refusal with nothing served between says that this minute ends earlier:
-- nobody takes the places of those who are refused. When nobody is in flight any more and about the
-- budget was served, the minute is used up. Less than that is an outage, which is probed as ever.
function MINUTE.on_refusal(d)
  local used = MINUTE.is_learned(d) and MINUTE.used(d)
  if not used then
    return
  end
  local about = math.floor(d.budget * 9 / 10)
  if d.consecutive_rate_limits > 1 and (d.used_up_at > 0 or used + d.in_flight >= about) then
    d.used_up_at = used + d.in_flight
  end
  if d.in_flight == 0 and used >= about then
    local left_us = d.opened_us + MINUTE.length_us - now_us
    WINDOW.cool_down(d, math.min(left_us, STATE.setting('max_cooldown_us', 300000000)))
  end
end

-- The next move of the window in words if the budget decides it, at most 60 characters; else nil.
function MINUTE.outlook(d)
  local used = MINUTE.is_learned(d) and MINUTE.used(d)
  if not used then
    return nil
  end
  local ends_us, blocked_us = d.opened_us + MINUTE.length_us, d.blocked_until_us - now_us
  if blocked_us > 0 and d.blocked_until_us <= ends_us and used >= math.floor(d.budget * 9 / 10) then
    return string.format('waits %.1f s: %d of about %d a minute are served', blocked_us / 1e6, used, d.budget)
  elseif MINUTE.is_used_up(d) then
    return string.format('lets %d calls end, which use up the minute (%.1f s left)', d.in_flight,
      (ends_us - now_us) / 1e6)
  end
  return nil
end

-- For a snapshot; without a learned budget its zeros.
function MINUTE.capture(d)
  local used = MINUTE.is_learned(d) and (MINUTE.used(d) or 0)
  return { budget = used and d.budget or 0, served = used or 0, periods = d.periods,
    ends_us = int(used and d.opened_us + MINUTE.length_us or 0) }
end

-- Forget the learned budget.
function MINUTE.forget(d)
  MINUTE.note(d, 0, 'reset', 0)
  d.opened_us, d.served_at_opening, d.used_up_at = 0, 0, 0
end
