-- A command with any number of arguments: `unpack` fails of some thousands. A thousand is even, so that
-- pairs stay together.
local function write_many(command, key, list)
  local n = #list
  if n > 0 and n <= 1000 then
    redis.call(command, key, unpack(list))
    return
  end
  for from = 1, n, 1000 do
    redis.call(command, key, unpack(list, from, math.min(n, from + 999)))
  end
end
