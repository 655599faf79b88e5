-- The refill of a budget that a refusal named, in words.
local REFILL = { units = { 'calls', 'requests', 'tokens', 'input_tokens', 'output_tokens' },
  periods = { 'second', 'minute', 'hour', 'day', 'month', 'time' } }

function REFILL.number_of(names, name)
  for i = 1, #names do
    if names[i] == name then
      return i
    end
  end
end

-- An instant as month, day and time of UTC, by the calendar's eras of 400 years.
function REFILL.instant(us)
  local seconds = math.floor(us / 1000000)
  local days = math.floor(seconds / 86400) + 719468
  local of_era = days % 146097
  local year = math.floor((of_era - math.floor(of_era / 1460) + math.floor(of_era / 36524)
    - math.floor(of_era / 146096)) / 365)
  local of_year = of_era - (365 * year + math.floor(year / 4) - math.floor(year / 100))
  local part = math.floor((5 * of_year + 2) / 153)
  local day, month = of_year - math.floor((153 * part + 2) / 5) + 1, part < 10 and part + 3 or part - 9
  return string.format('%02d-%02d %02d:%02d:%02d UTC', month, day, math.floor(seconds / 3600) % 24,
    math.floor(seconds / 60) % 60, seconds % 60)
end

-- The name of a budget from its number, '' for 0.
function REFILL.name(number)
  local unit, period = REFILL.units[math.floor(number / 10)], REFILL.periods[number % 10]
  return unit and period and unit .. '_per_' .. period or ''
end

-- The budget that a window waits for after a refusal, in words; nil for none.
function REFILL.outlook(d)
  if d.quota_until_us > now_us and d.quota_until_us >= d.blocked_until_us then
    local name = d.quota_name > 0 and REFILL.name(d.quota_name) or 'a budget'
    return string.format('waits for %s until %s', name, REFILL.instant(d.quota_until_us))
  end
end

-- Note the budget that a scope "quota:name" names; returns whether it names any.
function REFILL.note(d, scope)
  if string.sub(scope, 1, 5) ~= 'quota' then
    return false
  end
  local unit, period = string.match(scope, '^quota:([%a_]+)_per_(%a+)$')
  unit, period = REFILL.number_of(REFILL.units, unit), REFILL.number_of(REFILL.periods, period)
  local number = unit and period and unit * 10 + period or 0
  if d.quota_name ~= number then
    d.quota_name = number
  end
  return true
end
