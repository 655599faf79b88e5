-- A real number as text, losing nothing.
local function real(n)
  return string.format('%.17g', n)
end
