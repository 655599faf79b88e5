-- The types of a request shard's keys.
-- @include lib/shard/damage
function DAMAGE.types()
  return { { 'aliases', 'zset' }, { 'leases', 'hash' }, { 'members', 'zset' }, { 'checks', 'zset' },
    { 'intervals', 'hash' }, { 'suspects', 'zset' }, { 'awaited', 'zset' }, { 'held', 'zset' }, { 'waiters', 'hash' },
    { 'aside', 'zset' }, { 'line_chat', 'zset' }, { 'line_embedding', 'zset' }, { 'line_image', 'zset' },
    { 'line_healthcheck', 'zset' }, { 'fifo', 'zset' }, { 'groups', 'hash' }, { 'idle_groups', 'zset' },
    { 'deadlines', 'zset' }, { 'holds', 'zset' }, { 'budgets', 'hash' }, { 'sharers', 'zset' },
    { 'finished', 'zset' }, { 'events', 'stream' } }
end
