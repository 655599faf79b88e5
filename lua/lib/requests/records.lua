-- How leases, waiters and places in line are written down.
local FIVE = '([^|]*)|([^|]*)|([^|]*)|([^|]*)|([^|]*)'
local COST = '|?(%d*)' -- a cost of 0 is not written
local WAITER = FIVE .. COST
local LEASE = FIVE .. '|([^|]*)|([^|]*)|([^|]*)|(%a*)' .. COST

local function parse_lease(text)
  local member, domain_name, group_name, acquired_us, limit, cuts, effective_max, generation, hold, cost =
    string.match(text, LEASE)
  return { member = member, domain = domain_name, group = group_name,
    acquired_us = tonumber(acquired_us), limit = tonumber(limit), cuts = tonumber(cuts),
    effective_max = tonumber(effective_max), generation = generation,
    has_hold = hold == 'hold', cost = tonumber(cost) or 0 }
end

local function parse_waiter(text)
  local member, domain_name, group_name, arrival, deadline_us, cost = string.match(text, WAITER)
  return { member = member, domain = domain_name, group = group_name, arrival = arrival,
    deadline_us = tonumber(deadline_us), cost = tonumber(cost) or 0 }
end

local function cost_text(cost)
  return cost > 0 and '|' .. int(cost) or ''
end

local function line_member(g)
  return string.format('%016.0f', g.place) .. '\0' .. g.name
end

local function fifo_member(waiter, id)
  return waiter.domain .. '\0' .. waiter.group .. '\0' .. waiter.arrival .. '\0' .. id
end
