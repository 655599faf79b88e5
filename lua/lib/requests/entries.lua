-- The text forms of leases, waiters and places in line.
-- @include lib/shard/leases
local NUMBERS = { ['1.0'] = 1 } -- of texts that are met often
for i = 0, 127 do
  NUMBERS[INTS[i]] = i
end
-- A cost of 0 is not written.
local ENTRIES = {} -- luacheck: ignore 241
ENTRIES.waiter = '([^|]*)|([^|]*)|([^|]*)|([^|]*)|([^|]*)|?(%d*)|?(%d*)'
LEASES.pattern = '([^|]*)|([^|]*)|([^|]*)|([^|]*)|([^|]*)|([^|]*)|([^|]*)|(%a*)|?(%d*)'

-- An alias's entry in `held`. It is longer than 64 bytes, so that a server keeps `held` as a skip list from the
-- first registration on, as it searches a list of short entries from end to end.
function ENTRIES.alias(member, alias)
  return member .. '\0alias\0' .. alias .. '\0................................................................'
end

-- A number of a lease is a text until it is needed, but for `cuts` and `cost`: most are never asked for.
function LEASES.parse(text)
  local member, domain_name, group_name, acquired_us, limit, cuts, effective_max, hold, cost =
    string.match(text, LEASES.pattern)
  return { member = member, domain = domain_name, group = group_name, acquired_us = acquired_us,
    limit = limit, cuts = NUMBERS[cuts] or tonumber(cuts), effective_max = effective_max,
    has_hold = hold == 'hold', cost = cost ~= '' and tonumber(cost) or 0 }
end

function ENTRIES.parse_waiter(text)
  local member, domain_name, group_name, arrival, deadline_us, cost, since_us = string.match(text, ENTRIES.waiter)
  return { member = member, domain = domain_name, group = group_name, arrival = arrival,
    deadline_us = tonumber(deadline_us), cost = tonumber(cost) or 0, since_us = tonumber(since_us) }
end

function ENTRIES.cost_text(cost)
  return cost > 0 and '|' .. int(cost) or ''
end

function ENTRIES.line_member(g)
  return string.format('%016.0f', g.place) .. '\0' .. g.name
end

function ENTRIES.fifo_member(waiter, id)
  return waiter.domain .. '\0' .. waiter.group .. '\0' .. waiter.arrival .. '\0' .. id
end
