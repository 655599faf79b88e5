-- State of a task pool for the length of one call: read once, changed in memory, written once.
local META_FIELDS = { 'now_us', 'last_us', 'virtual_time', 'places', 'sequence', 'queued',
  'delayed', 'running', 'admissions', 'finished', 'generation' }
local META_NUMBERS = 10
local GROUP_EXTRA = { 'running', 'admitted_limit', 'signature', 'line' }

local stored_meta
local meta = {}
local limits, ledger, stored_ledger
local signatures = {}

local function load_meta()
  stored_meta = read_numbers(K.meta, META_FIELDS, META_NUMBERS)
  for i = 1, META_NUMBERS do
    meta[META_FIELDS[i]] = stored_meta[i] or 0
  end
  meta.generation = stored_meta[META_NUMBERS + 1] or nil
  now_us, meta.last_us = shard_time(stored_meta[1], stored_meta[2])
  meta.now_us = now_us
  limits = read_hash(K.limits)
  stored_ledger = read_hash(K.ledger)
  ledger = {}
  for resource, amount in pairs(stored_ledger) do
    ledger[resource] = tonumber(amount)
  end
end

local function next_place()
  meta.places = meta.places + 1
  return meta.places
end

-- A resource signature, such as "request:p/m=1,submission=1": what a task needs all at once.
local function amounts_of(signature)
  local parsed = signatures[signature]
  if not parsed then
    parsed = { typed = {}, amounts = {} }
    local items = split(signature, ',')
    for i = 1, #items do
      local part = split(items[i], '=')
      parsed.amounts[part[1]] = tonumber(part[2])
      if part[1] ~= 'submission' then
        parsed.typed[#parsed.typed + 1] = part[1]
      end
    end
    signatures[signature] = parsed
  end
  return parsed
end

local function limit_of(resource)
  return tonumber(limits[resource]) or 0
end

local function fits(signature)
  for resource, amount in pairs(amounts_of(signature).amounts) do
    if (ledger[resource] or 0) + amount > limit_of(resource) then
      return false
    end
  end
  return true
end

local function take(signature)
  for resource, amount in pairs(amounts_of(signature).amounts) do
    ledger[resource] = (ledger[resource] or 0) + amount
  end
end

local function give_back(signature)
  for resource, amount in pairs(amounts_of(signature).amounts) do
    ledger[resource] = ledger[resource] - amount
  end
end

local function parse_lease(text)
  local part = split(text, '|')
  return { member = part[1], task_id = part[2], signature = part[3], acquired_us = part[4] }
end
