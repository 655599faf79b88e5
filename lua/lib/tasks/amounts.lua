-- Amounts by resource as they stand in a group's record: "name=amount" between commas, by name.
local function parse_amounts(text)
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

local function pack_amounts(amounts)
  local items = {}
  for resource, amount in pairs(amounts) do
    if amount > 0 then
      items[#items + 1] = resource .. '=' .. int(amount)
    end
  end
  table.sort(items)
  return table.concat(items, ',')
end
