-- Whether the counts of a task pool's keys agree.
-- @include lib/tasks/types
-- @include lib/tasks/lost
-- @include lib/runs/check

-- The number of all units in use, by the ledger.
function LEDGER.total()
  local total = 0
  for _, amount in pairs(ledger) do
    total = total + amount
  end
  return total
end

-- The number of functions that members serve, summed over the members.
function CLASSES.count_served()
  local total, counts = 0, redis.call('HVALS', K.functions)
  for i = 1, #counts do
    total = total + tonumber(counts[i])
  end
  return total
end

-- Whether a suspect runs, of the first ones: its member is then watched.
function LOST.runs_any()
  local ids = meta.lost > 0 and redis.call('HKEYS', K.losses) or {}
  for i = 1, math.min(#ids, LOST.looked_at) do
    local task = TASKS.read(ids[i])
    local waits = not task or redis.call('ZSCORE', K.suspect_tasks, LOST.member(ids[i], task))
      or redis.call('ZSCORE', K.delayed, ids[i]) or redis.call('ZSCORE', K.parked, QUEUE.parked_member(ids[i], task))
    if not waits then
      return true
    end
  end
  return false
end

-- Keys that are there exactly where others are, each by its name.
function DAMAGE.is_there_beside()
  local claims = redis.call('ZRANGE', K.claims, '[@', '(A', 'BYLEX', 'LIMIT', 0, 1)
  local limits_stored = redis.call('HLEN', K.limits)
  return { { 'claims', limits_stored > 0, #claims > 0, 'limits' },
    { 'config', redis.call('HLEN', K.config) == 0 and meta.policy == 'borrow', false },
    { 'finished', meta.finished > 0, redis.call('ZCARD', K.finished) > 0 },
    { 'events', meta.sequence > 0, redis.call('XLEN', K.events) > 0 } }
end

-- The missing one of two keys whose counts do not agree.
function DAMAGE.absent_of(name, other)
  return other and redis.call('EXISTS', K[name]) == 1 and redis.call('EXISTS', K[other]) == 0 and other or name
end

-- The name of the first key whose count contradicts the others, nil for none: O(1) but for functions and runs.
function DAMAGE.miscounted()
  local members, running = redis.call('ZCARD', K.members), redis.call('HLEN', K.leases)
  local tasks = redis.call('HLEN', K.tasks)
  local counts = { { 'leases', meta.running, running }, { 'tasks', TASKS.count(), tasks },
    { 'queue', tasks, redis.call('ZCARD', K.queue) }, { 'fifo', meta.queued, redis.call('ZCARD', K.fifo) },
    { 'delayed', meta.delayed, redis.call('ZCARD', K.delayed) },
    { 'parked', meta.parked, redis.call('ZCARD', K.parked) },
    { 'unserved', meta.unserved, redis.call('ZCARD', K.unserved) },
    { 'suspect_tasks', meta.suspect_tasks, redis.call('ZCARD', K.suspect_tasks) },
    { 'held', running + CLASSES.count_served(), redis.call('ZCARD', K.held), 'functions' },
    { 'ready', groups_in_lines, redis.call('ZCARD', K.ready), 'signatures' }, { 'fifo', meta.queued > 0, groups_in_lines > 0 },
    { 'ledger', LEDGER.total() >= running, true }, { 'losses', meta.lost, redis.call('HLEN', K.losses) },
    { 'groups', redis.call('ZCARD', K.idle_groups), redis.call('HLEN', K.groups), 'idle_groups' },
    { 'checks', members, redis.call('ZCARD', K.checks), 'members' }, { 'intervals', members, redis.call('HLEN', K.intervals) },
    { 'suspects', meta.suspects, redis.call('ZCARD', K.suspects) },
    { 'watched', redis.call('HLEN', K.watched) == 0 and LOST.runs_any(), false } }
  local beside = DAMAGE.is_there_beside()
  for i = 1, #beside do
    counts[#counts + 1] = beside[i]
  end
  for i = 1, #counts do
    if counts[i][2] ~= counts[i][3] then
      return DAMAGE.absent_of(counts[i][1], counts[i][4])
    end
  end
  redis.call('ZCARD', K.idle) -- they raise where they are of another type
  redis.call('HLEN', K.pushes)
  return RUNS.miscounted()
end

-- Raise where a key is damaged in a way that no single operation would meet.
function DAMAGE.check()
  if meta.recovering_us > 0 or meta.is_reindexed then
    return -- what this call worked out again is not written yet
  end
  LEASES.flush()
  local name = DAMAGE.miscounted() or DAMAGE.unreadable(DAMAGE.looked_at)
  if name then
    DAMAGE.raise(name)
  end
end
