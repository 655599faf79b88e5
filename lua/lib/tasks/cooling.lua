-- Resources whose provider takes nothing for now (design 05, *Failures*). Tasks of runs that ask for one wait in
-- their places until its cooldown is over; the first that is refused then tells how long the next one lasts.
-- `meta.cooling` holds them as resource=until_us=times, "," between, `times` being how many cooldowns
-- followed each other without a finished task of that resource between them.
-- @include lib/tasks/classes
local COOLING = { most = 64, cell_function = 'forebay_cell' }

-- By resource: until when it cools, and how many times in a row it did.
function COOLING.all()
  if not meta.cooled then
    meta.cooled = {}
    local items = meta.cooling == '' and {} or split(meta.cooling, ',')
    for i = 1, #items do
      local part = split(items[i], '=')
      meta.cooled[part[1]] = { until_us = tonumber(part[2]), times = tonumber(part[3]) }
    end
  end
  return meta.cooled
end

function COOLING.write()
  local items = {}
  for resource, one in pairs(COOLING.all()) do
    items[#items + 1] = resource .. '=' .. int(one.until_us) .. '=' .. int(one.times)
  end
  table.sort(items)
  meta.cooling = table.concat(items, ',')
end

function COOLING.is_cooling(resource)
  local one = meta.cooling ~= '' and COOLING.all()[resource]
  return one and one.until_us > now_us
end

-- Whether the tasks of a class wait for a cooldown: those of runs alone, as others choose for themselves.
function COOLING.holds(class)
  if meta.cooling == '' or CLASSES.function_of(class) ~= COOLING.cell_function then
    return false
  end
  for resource in pairs(LEDGER.amounts_of(class).amounts) do
    if COOLING.is_cooling(resource) then
      return true
    end
  end
  return false
end

-- Whether a task of a run waits for a resource that it names as cooling.
function COOLING.holds_for(task, resource)
  return task.fn == COOLING.cell_function and LEDGER.amounts_of(task.signature).amounts[resource or ''] ~= nil
end

-- The end of the first cooldown, or nil where nothing cools.
function COOLING.next_us()
  local first
  for _, one in pairs(meta.cooling == '' and {} or COOLING.all()) do
    if one.until_us > now_us and (not first or one.until_us < first) then
      first = one.until_us
    end
  end
  return first
end

-- Forget those whose cooldown was over first, so that names of past runs do not gather.
function COOLING.make_room()
  local count, oldest = 0, nil
  for resource, one in pairs(COOLING.all()) do
    count = count + 1
    if not oldest or one.until_us < COOLING.all()[oldest].until_us then
      oldest = resource
    end
  end
  if count > COOLING.most then
    meta.cooled[oldest] = nil
  end
end

-- A task was refused for want of room at its provider, which tells until when. A cooldown is only extended.
function COOLING.begin(resource, until_us)
  local one = COOLING.all()[resource] or { until_us = 0, times = 0 }
  if one.until_us <= now_us then
    one.times = one.times + 1
    emit('resource_cooling', 'resource', resource, 'until_us', int(until_us), 'times', int(one.times))
  end
  one.until_us = math.max(one.until_us, until_us)
  meta.cooled[resource] = one
  COOLING.make_room()
  COOLING.write()
end

-- A task of a run has ended well: what it asked for is there again.
function COOLING.finish(signature)
  if meta.cooling == '' then
    return
  end
  for resource in pairs(LEDGER.amounts_of(signature).amounts) do
    if COOLING.all()[resource] then
      meta.cooled[resource] = nil
      COOLING.write()
    end
  end
end
