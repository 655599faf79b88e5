-- The types of a task pool's keys, and which entries of them can be read.
-- @include lib/split
-- @include lib/shard/damage
-- @include lib/tasks/tasks
function DAMAGE.types()
  return { { 'claims', 'zset' }, { 'limits', 'hash' }, { 'ledger', 'hash' }, { 'config', 'hash' },
    { 'tasks', 'hash' }, { 'queue', 'zset' }, { 'ready', 'zset' }, { 'signatures', 'hash' }, { 'fifo', 'zset' },
    { 'groups', 'hash' }, { 'idle_groups', 'zset' }, { 'delayed', 'zset' }, { 'parked', 'zset' },
    { 'unserved', 'zset' }, { 'suspect_tasks', 'zset' }, { 'leases', 'hash' }, { 'members', 'zset' },
    { 'checks', 'zset' }, { 'intervals', 'hash' }, { 'suspects', 'zset' }, { 'awaited', 'zset' }, { 'held', 'zset' },
    { 'functions', 'hash' }, { 'losses', 'hash' }, { 'watched', 'hash' }, { 'idle', 'zset' }, { 'pushes', 'hash' },
    { 'finished', 'zset' }, { 'events', 'stream' }, { 'runs', 'hash' }, { 'progress', 'hash' }, { 'cells', 'hash' },
    { 'row_groups', 'hash' }, { 'checkpoints', 'zset' } }
end

-- Whether the text of an entry can be read, by the hash that it stands in.
DAMAGE.can_read = {
  leases = function(text)
    local lease = LEASES.parse(text)
    return lease.member and tonumber(lease.acquired_us)
  end,
  tasks = function(text)
    local task = TASKS.parse(text)
    return task.losses and task.tries and tonumber(task.score) and tonumber(task.weight)
  end,
  groups = function(text)
    local part = split(text, '|')
    return #part >= 6 + #GROUPS.extra and tonumber(part[1]) and tonumber(part[3]) and tonumber(part[5])
  end,
}
