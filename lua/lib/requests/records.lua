-- How leases, waiters and places in line are written down.
local function parse_lease(text)
  local part = split(text, '|')
  return { member = part[1], domain = part[2], group = part[3], acquired_us = tonumber(part[4]),
    limit = tonumber(part[5]), cuts = tonumber(part[6]), effective_max = tonumber(part[7]),
    generation = part[8] }
end

local function parse_waiter(text)
  local part = split(text, '|')
  return { member = part[1], domain = part[2], group = part[3], arrival = part[4],
    deadline_us = tonumber(part[5]) }
end

local function line_member(g)
  return string.format('%016.0f', g.place) .. '\0' .. g.name
end

local function fifo_member(waiter, id)
  return waiter.domain .. '\0' .. waiter.group .. '\0' .. waiter.arrival .. '\0' .. id
end
