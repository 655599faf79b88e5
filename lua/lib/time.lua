-- Time on a shard, from what it stored of its own time and of the server's clock: a step back of
-- that clock costs nothing and time flows on. Returns the shard's time and the reading to store.
-- @include lib/clock
local function shard_time(stored_now, stored_last)
  local read = server_time_us()
  local step = math.max(0, read - (tonumber(stored_last) or read))
  return (tonumber(stored_now) or read) + step, read
end
