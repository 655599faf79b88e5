-- The tests' clock, in the place of lib/clock: the key holds the server's time in microseconds.
local function server_time_us()
  return tonumber(redis.call('GET', 'fb:test:clock'))
end
