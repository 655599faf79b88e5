-- What a signature asks for, beside what others want and what providers have room for.
local hinted = {} -- resources whose provider has no room now, as the caller says

local function hint(resources)
  hinted = {}
  if resources ~= '' then
    local names = split(resources, ',')
    for i = 1, #names do
      hinted[names[i]] = true
    end
  end
end

local function is_hinted(signature)
  for resource in pairs(amounts_of(signature).amounts) do
    if hinted[resource] then
      return true
    end
  end
  return false
end

local function wants(signature, resource)
  return amounts_of(signature).amounts[resource] ~= nil
end
