-- An integer as text: tostring keeps 14 digits only.
local function int(n)
  return string.format('%d', n)
end
