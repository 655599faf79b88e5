-- What groups got against their weights, as an operator asks (design 07).
-- @include lib/shard/questions
-- @include lib/shard/groups
local TAKEN = { most_groups = 1000, recent_us = 120 * 1000000, read_at_once = 500 }

-- The groups that had a turn or a waiter in the last minute, of the latest ones, and those of `names` besides.
function TAKEN.groups(names)
  local recent, list, is_known = redis.call('ZRANGE', K.idle_groups, '+inf', int(now_us - TAKEN.recent_us), 'BYSCORE',
    'REV', 'LIMIT', 0, TAKEN.most_groups), {}, {}
  for i = 1, #recent do
    names[#names + 1] = recent[i]
  end
  for from = 1, #names, TAKEN.read_at_once do
    GROUPS.read_ahead({ unpack(names, from, math.min(#names, from + TAKEN.read_at_once - 1)) })
  end
  for i = 1, #names do
    local g = not is_known[names[i]] and GROUPS.of(names[i])
    is_known[names[i]] = true
    if g and (g.waiting > 0 or (tonumber(g.running) or 0) > 0 or TAKEN.in_a_minute(g) > 0) then
      list[#list + 1] = g
    end
  end
  return list
end

-- What a group's turns cost in the last 60 s: of the minute before as much as lies within them, at an even rate.
function TAKEN.in_a_minute(g)
  local passed, minutes = now_us % GROUPS.minute_us / GROUPS.minute_us, math.floor(now_us / GROUPS.minute_us)
    - math.floor(g.touched_us / GROUPS.minute_us)
  if minutes == 0 then
    return g.got + g.got_before * (1 - passed)
  end
  return minutes == 1 and g.got * (1 - passed) or 0
end

function TAKEN.percent(part, whole)
  return whole > 0 and string.format('%.0f %%', 100 * part / whole) or '-'
end

-- A row for each group, those with the most waiters first: what it got in the last minute beside its part by weight.
function TAKEN.add_table(lines, names, rows, unit)
  local list, weights, taken = TAKEN.groups(names), 0, 0
  for i = 1, #list do
    weights, taken = weights + list[i].weight, taken + TAKEN.in_a_minute(list[i])
  end
  table.sort(list, function(a, b)
    if a.waiting ~= b.waiting then
      return a.waiting > b.waiting
    end
    return TAKEN.in_a_minute(a) > TAKEN.in_a_minute(b)
  end)
  local told = {}
  for i = 1, math.min(rows, #list) do
    local g = list[i]
    told[i] = { g.name, int(g.waiting), string.format('%.0f', TAKEN.in_a_minute(g)), TAKEN.percent(TAKEN.in_a_minute(g), taken),
      TAKEN.percent(g.weight, weights), string.format('%.6g', g.weight), g.running and TEXT.or_dash(tonumber(g.running)) }
  end
  TEXT.add_table(lines, { 'group', 'waiting', unit .. ' in 60 s', 'share', 'by weight', 'weight',
    #GROUPS.extra > 0 and 'running' or nil }, told, #list)
  if #list == 0 then
    lines[#lines + 1] = 'no group waits or had a turn in the last minute'
  end
end
