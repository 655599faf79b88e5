-- State of a task pool for the length of one call: read once, changed in memory, written once.
local RECORD = { often = 11, numbers = 20, 'now_us', 'last_us', 'sequence', 'back_us', 'next_check_us',
  'virtual_time', 'places', 'queued', 'running', 'admissions', 'finished', 'delayed', 'parked',
  'reserve_after_us', 'first_since_us', 'suspects', 'max_losses', 'lost', 'unserved', 'suspect_tasks',
  'state', 'policy', 'events', 'first_task', 'first_signature', 'draining', 'cooling' }
local GROUP_EXTRA = { 'running', 'away', 'admitted_limit', 'head', 'signature', 'line', 'out', 'debt' }

local UNCLAIMED_SUBMISSIONS = '10000' -- tasks at once in a pool where nobody claims a limit of them

local meta
local limits, ledger, stored_ledger
local signatures = {}

local function load_meta()
  if not read_fields then
    SHARD.read('', {})
  end
  meta = SHARD.record(RECORD)
  meta.cooled = nil
  limits = read_hash(K.limits)
  limits.submission = limits.submission or UNCLAIMED_SUBMISSIONS
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

-- Tell what befell one task, where the pool is told to write down that much.
local function emit_task(...)
  if meta.events == 'full' then
    emit(...)
  end
end

-- A resource signature, such as "request:p/m=1,submission=1": what a task needs all at once. Its
-- pressing resources are those on which groups press each other: all but `submission`, or that alone.
local function amounts_of(signature)
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

local function limit_of(resource)
  return tonumber(limits[resource]) or 0
end

-- What is left of a resource; below 0 where its limit was lowered under what is out.
local function left_of(resource)
  return limit_of(resource) - (ledger[resource] or 0)
end

-- Whether all amounts are there, or would be if at least `free` were left.
local function fits(signature, free)
  for resource, amount in pairs(amounts_of(signature).amounts) do
    if amount > math.max(left_of(resource), free and free[resource] or 0) then
      return false
    end
  end
  return true
end

local function exceeds_limits(signature)
  for resource, amount in pairs(amounts_of(signature).amounts) do
    if amount > limit_of(resource) then
      return true
    end
  end
  return false
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
  local member, task_id, group_name, signature, acquired_us, kind = string.match(text,
    '^([^|]*)|([^|]*)|([^|]*)|([^|]*)|([^|]*)|(.*)$')
  return { member = member, task_id = task_id, group = group_name, signature = signature,
    acquired_us = acquired_us, is_cell = kind == 'cell' }
end
