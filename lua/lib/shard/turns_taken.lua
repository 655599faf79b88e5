-- The turns of groups against their weights, for operators (design 07).
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

-- The cost of a group's turns in the last 60 s: of the minute before as much as lies within them, at an even rate.
function TAKEN.in_a_minute(g)
  local passed, minutes = now_us % GROUPS.minute_us / GROUPS.minute_us, math.floor(now_us / GROUPS.minute_us)
    - math.floor(g.touched_us / GROUPS.minute_us)
  if minutes == 0 then
    return g.got + g.got_before * (1 - passed)
  end
  return minutes == 1 and g.got * (1 - passed) or 0
end

-- A part of a whole, to a thousandth; nil of none.
function TAKEN.part(part, whole)
  return whole > 0 and math.floor(1000 * part / whole + 0.5) / 1000 or nil
end

function TAKEN.percent(part)
  return string.format('%.0f %%', 100 * part)
end

function TAKEN.columns(first, unit)
  return { { first, first }, { 'waiting', 'waiting' },
    { unit .. ' in 60 s', 'got_in_60_seconds', function(got) return string.format('%.0f', got) end },
    { 'share', 'share', TAKEN.percent }, { 'by weight', 'share_by_weight', TAKEN.percent },
    { 'weight', 'weight', function(weight) return string.format('%.6g', weight) end },
    #GROUPS.extra > 0 and { 'running', 'running', TEXT.or_dash } or nil }
end

-- Rows with the most waiters first, then those that got most; what each got is a part of `taken`, each weight of `weights`.
function TAKEN.finish(list, taken, weights)
  table.sort(list, function(a, b)
    if a.waiting ~= b.waiting then
      return a.waiting > b.waiting
    end
    return a.got_in_60_seconds > b.got_in_60_seconds
  end)
  for i = 1, #list do
    local row = list[i]
    row.share, row.share_by_weight = TAKEN.part(row.got_in_60_seconds, taken), TAKEN.part(row.weight, weights)
    row.got_in_60_seconds = math.floor(10 * row.got_in_60_seconds + 0.5) / 10
  end
  return list
end

-- The first `most` of a list.
function TAKEN.first(list, most)
  local first = {}
  for i = 1, math.min(most, #list) do
    first[i] = list[i]
  end
  return first
end

-- A row for each value of `field`, the sum of the rows that have it.
function TAKEN.sums(list, field)
  local by_value, sums = {}, {}
  for i = 1, #list do
    local row = list[i]
    local sum = by_value[row[field]]
    if not sum then
      sum = { [field] = row[field], groups = 0, waiting = 0, got_in_60_seconds = 0, got_of = row.got_of, weight = 0,
        running = 0 }
      by_value[row[field]], sums[#sums + 1] = sum, sum
    end
    sum.groups, sum.waiting, sum.running = sum.groups + 1, sum.waiting + row.waiting, sum.running + row.running
    sum.got_in_60_seconds, sum.weight = sum.got_in_60_seconds + row.got_in_60_seconds, sum.weight + row.weight
  end
  return sums
end

-- A row for each group: what it got in the last minute beside its part by weight. `tenant_of`, of pools alone, returns
-- whose a group is: the sums of tenants' groups come first.
function TAKEN.add_table(lines, names, rows, unit, tenant_of)
  local found, list, weights, taken = TAKEN.groups(names), {}, 0, 0
  for i = 1, #found do
    local g, got = found[i], TAKEN.in_a_minute(found[i])
    weights, taken = weights + g.weight, taken + got
    list[i] = { group = g.name, tenant = tenant_of and tenant_of(g.name) or nil, waiting = g.waiting, weight = g.weight,
      got_in_60_seconds = got, got_of = unit, running = g.running and tonumber(g.running) or tenant_of and 0 or nil }
  end
  if tenant_of and #list > 0 then
    local tenants = TAKEN.finish(TAKEN.sums(list, 'tenant'), taken, weights)
    TEXT.add_rows(lines, 'tenant', TAKEN.columns('tenant', unit), TAKEN.first(tenants, rows), #tenants)
  end
  TAKEN.finish(list, taken, weights)
  TEXT.add_rows(lines, 'group', TAKEN.columns('group', unit), TAKEN.first(list, rows), #list)
  if #list == 0 then
    lines[#lines + 1] = 'no group waits or had a turn in the last minute'
  end
end
