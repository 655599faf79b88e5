-- An integer as text: tostring keeps 14 digits only. The text of a small one is looked up, as to format a number
-- costs as much as ten steps of Lua.
local INTS = {}
for i = 0, 127 do
  INTS[i] = i .. ''
end

local function int(n)
  return INTS[n] or string.format('%d', n)
end
