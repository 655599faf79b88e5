-- The server's clock: the only source of time (design 06, *Clock*). Tests and the simulator compose
-- scripts with another fragment in its place.
local function server_time_us()
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000000 + tonumber(t[2])
end
