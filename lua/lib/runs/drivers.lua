-- The driver of a run (design 05, *Drivers*), for as long as it is a member. While there is none, the run's
-- claims of limits rest and no row group is admitted; those that are open are worked to their end.
-- @include lib/shard/suspects
-- @include lib/tasks/limits
-- @include lib/runs/state
local DRIVERS = {}

-- The holder of a run's claims. The names of other holders are encoded and have no colon.
function DRIVERS.holder(run)
  return 'run:' .. run
end

function DRIVERS.entry(member, run)
  return '!' .. member .. '\0' .. run
end

-- Whether a run has a live driver. A killed one is noticed before its membership ends: its channel has no listener.
function DRIVERS.is_present(run)
  local driver = redis.call('HGET', K.progress, run .. '\0driver')
  return driver and SUSPECTS.is_present(driver)
end

-- Make the caller the driver of a run, replacing an earlier one.
function DRIVERS.begin(run)
  local before = redis.call('HGET', K.progress, run .. '\0driver')
  if before == member_id then
    return
  end
  if before then
    redis.call('ZREM', K.claims, DRIVERS.entry(before, run))
  else
    CLAIMS.move(DRIVERS.holder(run), '~', '=')
  end
  EXPIRY.with_shard('claims')
  EXPIRY.with_shard('progress')
  redis.call('ZADD', K.claims, 0, DRIVERS.entry(member_id, run))
  redis.call('HSET', K.progress, run .. '\0driver', member_id)
  emit('run_attended', 'run_id', run, 'member_id', member_id)
end

-- End a run: delete its claims and its driver.
function DRIVERS.finish(run)
  local driver = redis.call('HGET', K.progress, run .. '\0driver')
  if driver then
    redis.call('ZREM', K.claims, DRIVERS.entry(driver, run))
  end
  CLAIMS.drop(DRIVERS.holder(run))
end

-- End the driving of at most `most` runs by a member whose membership ends; returns how many.
function DRIVERS.end_member(member, most)
  local entries = CLAIMS.under('!' .. member, most)
  for i = 1, #entries do
    local run = split(entries[i], '\0')[2]
    redis.call('ZREM', K.claims, entries[i])
    redis.call('HDEL', K.progress, run .. '\0driver')
    CLAIMS.move(DRIVERS.holder(run), '=', '~')
    emit('run_unattended', 'run_id', run, 'member_id', member)
  end
  return #entries
end
