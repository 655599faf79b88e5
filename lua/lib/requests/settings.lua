-- The settings that a registration carries besides its cap. Each setting that it changes is an
-- event with the values before and after; before the first registration the defaults are in force. An
-- empty text stands for "none".
-- @include lib/requests/draws
local SETTINGS = { -- a table, as a script may have 200 locals
  of_windows = { { 'rule', 'steady' }, { 'successes_until_try', '150' }, { 'round_successes', '24' },
    { 'multiplicative_decrease_factor', '0.75' }, { 'additive_increase_step', '1' },
    { 'successes_until_increase', '25' }, { 'cooldown_us', '2000000' }, { 'startup_ramp_us', '0' },
    { 'max_cooldown_us', '300000000' } },
}

function SETTINGS.emit_change(alias, name, from, to)
  if from ~= to and (tonumber(from) == nil or tonumber(from) ~= tonumber(to)) then
    emit('request_setting_changed', 'setting', name, 'from', from, 'to', to, 'alias', alias,
      'member_id', member_id)
  end
end

function SETTINGS.or_none(value)
  return value ~= 0 and int(value) or ''
end

-- Write a setting that is needed only when a window is born, moved or capped.
function SETTINGS.store(alias, name, value, default)
  SETTINGS.emit_change(alias, name, STATE.settings().values[name] or default, value)
  STATE.change_setting(name, value)
end

-- Settings that most calls need are in the hash that every call reads.
function SETTINGS.store_in_meta(alias, max_hold_us, fair_by)
  SETTINGS.emit_change(alias, 'max_hold_us', SETTINGS.or_none(meta.max_hold_us), max_hold_us)
  SETTINGS.emit_change(alias, 'fair_by', meta.token_fair > 0 and 'tokens' or 'requests', fair_by)
  meta.max_hold_us = tonumber(max_hold_us) or 0
  meta.token_fair = fair_by == 'tokens' and 1 or 0
end

function SETTINGS.store_budget(alias, number, limit, burst)
  local before, name = BUDGETS.all()[number] or { registered = 0, burst = 0 }, BUDGETS.names[number]
  SETTINGS.emit_change(alias, name, SETTINGS.or_none(before.registered), limit)
  SETTINGS.emit_change(alias, name .. '_burst', SETTINGS.or_none(before.burst), burst)
  DRAWS.register(number, tonumber(limit) or 0, tonumber(burst) or 0)
end

-- `values` are those of `of_windows` in their order, then max_hold_us, then four initial limits and four
-- clamps, then what is fair, then, unless the fleet's budgets stay as they are, their four limits and
-- four bursts.
function SETTINGS.register(alias, values)
  local n = #SETTINGS.of_windows
  for i = 1, n do
    SETTINGS.store(alias, SETTINGS.of_windows[i][1], values[i], SETTINGS.of_windows[i][2])
  end
  SETTINGS.store_in_meta(alias, values[n + 1], values[n + 10])
  for i = 1, #DOMAINS do
    SETTINGS.store(alias, 'initial_limit:' .. DOMAINS[i], values[n + 1 + i], '')
    SETTINGS.store(alias, 'max_limit_clamp:' .. DOMAINS[i], values[n + 5 + i], '')
  end
  if #values > n + 10 then
    for i = 1, #BUDGETS.names do
      SETTINGS.store_budget(alias, i, values[n + 10 + i], values[n + 14 + i])
    end
  end
end
