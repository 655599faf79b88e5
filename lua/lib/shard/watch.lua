-- Distinguishes an ended member from a silent one (design 06, *Members*).
-- @include lib/int
local WATCH = { silent_intervals = 1.1 } -- above 1, as the only live member of a quiet shard beats once an interval

-- Note a sign of life of a member; the shard checks the member after an interval without another.
function WATCH.begin(head, member, life_us)
  local interval_us = math.floor(tonumber(life_us) / 3)
  local check_us = head.now_us + interval_us
  redis.call('ZADD', K.checks, int(check_us), member)
  redis.call('HSET', K.intervals, member, int(interval_us))
  head.next_check_us = math.min(head.next_check_us, check_us)
end

-- Whether all members were silent for longer than live ones are: the server's own network
-- was away, and nobody's absence counts from before.
function WATCH.was_away(silent_us, interval_us)
  return silent_us > WATCH.silent_intervals * interval_us
end
