-- A number as text, losing nothing; most are integers, which are cheaper to write.
-- @include lib/int
local function real(n)
  return INTS[n] or string.format(n % 1 == 0 and '%d' or '%.17g', n)
end
