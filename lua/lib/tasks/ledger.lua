-- The ledger of a pool (design 04, *The ledger*): what its tasks ask for by resource, the limits, and what is out.
-- @include lib/read_hash
-- @include lib/write_many
-- @include lib/shard/shard
-- @include lib/shard/expiry
local LEDGER = { unclaimed_submissions = '10000' } -- tasks at once in a pool where nobody claims a limit of them
local limits, ledger, stored_ledger
local signatures = {} -- a resource signature -> what it asks for
local hinted = {} -- resources whose provider has no room now, as the caller says

function LEDGER.load()
  limits = read_hash(K.limits)
  meta.are_limits_there = next(limits) ~= nil
  limits.submission = limits.submission or LEDGER.unclaimed_submissions
  stored_ledger = read_hash(K.ledger)
  ledger = {}
  for resource, amount in pairs(stored_ledger) do
    ledger[resource] = tonumber(amount)
  end
end

function LEDGER.write()
  local changed, n = {}, 0
  for resource, amount in pairs(ledger) do
    if tonumber(stored_ledger[resource]) ~= amount then
      changed[n + 1], changed[n + 2], n = resource, int(amount), n + 2
    end
  end
  if n > 0 and next(stored_ledger) == nil then
    EXPIRY.with_shard('ledger')
  end
  write_many('HSET', K.ledger, changed)
end

-- A resource signature, such as "request:p/m=1,submission=1": what a task needs all at once. Its
-- pressing resources are those on which groups press each other: all but `submission`, or that alone.
function LEDGER.amounts_of(signature)
  local parsed = signatures[signature]
  if not parsed then
    parsed = { names = {}, pressing = {}, amounts = {} }
    local items = split(string.match(signature, '^[^;]*'), ',') -- of a class its amounts
    for i = 1, #items do
      local part = split(items[i], '=')
      parsed.names[i] = part[1]
      parsed.amounts[part[1]] = tonumber(part[2])
      if part[1] ~= 'submission' or #items == 1 then
        parsed.pressing[#parsed.pressing + 1] = part[1]
      end
    end
    signatures[signature] = parsed
  end
  return parsed
end

function LEDGER.limit_of(resource)
  return tonumber(limits[resource]) or 0
end

-- The free units of a resource; below 0 where its limit was lowered below the units in use.
function LEDGER.left_of(resource)
  return LEDGER.limit_of(resource) - (ledger[resource] or 0)
end

-- Whether all amounts are there, or would be if at least `free` were left.
function LEDGER.fits(signature, free)
  for resource, amount in pairs(LEDGER.amounts_of(signature).amounts) do
    if amount > math.max(LEDGER.left_of(resource), free and free[resource] or 0) then
      return false
    end
  end
  return true
end

function LEDGER.exceeds_limits(signature)
  for resource, amount in pairs(LEDGER.amounts_of(signature).amounts) do
    if amount > LEDGER.limit_of(resource) then
      return true
    end
  end
  return false
end

function LEDGER.take(signature)
  for resource, amount in pairs(LEDGER.amounts_of(signature).amounts) do
    ledger[resource] = (ledger[resource] or 0) + amount
  end
end

function LEDGER.release(signature)
  for resource, amount in pairs(LEDGER.amounts_of(signature).amounts) do
    ledger[resource] = ledger[resource] - amount
  end
end

-- Note the resources whose providers have no room now, as the caller says: names with commas between.
function LEDGER.hint(resources)
  hinted = {}
  if resources ~= '' then
    local names = split(resources, ',')
    for i = 1, #names do
      hinted[names[i]] = true
    end
  end
end

function LEDGER.is_hinted(signature)
  for resource in pairs(LEDGER.amounts_of(signature).amounts) do
    if hinted[resource] then
      return true
    end
  end
  return false
end

function LEDGER.wants(signature, resource)
  return LEDGER.amounts_of(signature).amounts[resource] ~= nil
end

-- Amounts by resource as they stand in a group's record: "name=amount" between commas, by name.
function LEDGER.parse_amounts(text)
  local amounts = {}
  if (text or '') ~= '' then
    local items = split(text, ',')
    for i = 1, #items do
      local part = split(items[i], '=')
      amounts[part[1]] = tonumber(part[2])
    end
  end
  return amounts
end

function LEDGER.pack_amounts(amounts)
  local items = {}
  for resource, amount in pairs(amounts) do
    if amount > 0 then
      items[#items + 1] = resource .. '=' .. int(amount)
    end
  end
  table.sort(items)
  return table.concat(items, ',')
end
