-- The types of a request shard's keys, and which entries of them can be read.
-- @include lib/shard/damage
-- @include lib/shard/groups
-- @include lib/requests/entries
-- @include lib/requests/state
function DAMAGE.types()
  return { { 'aliases', 'zset' }, { 'leases', 'hash' }, { 'members', 'zset' }, { 'checks', 'zset' },
    { 'intervals', 'hash' }, { 'suspects', 'zset' }, { 'awaited', 'zset' }, { 'held', 'zset' }, { 'waiters', 'hash' },
    { 'aside', 'zset' }, { 'line_chat', 'zset' }, { 'line_embedding', 'zset' }, { 'line_image', 'zset' },
    { 'line_healthcheck', 'zset' }, { 'fifo', 'zset' }, { 'groups', 'hash' }, { 'idle_groups', 'zset' },
    { 'deadlines', 'zset' }, { 'holds', 'zset' }, { 'budgets', 'hash' }, { 'sharers', 'zset' },
    { 'finished', 'zset' }, { 'events', 'stream' } }
end

-- Whether the text of an entry can be read, by the hash that it stands in.
DAMAGE.can_read = {
  leases = function(text)
    local lease = LEASES.parse(text)
    return lease.member and STATE.place_of_window[lease.domain] and tonumber(lease.acquired_us)
  end,
  waiters = function(text)
    local waiter = ENTRIES.parse_waiter(text)
    return waiter.member and STATE.place_of_window[waiter.domain] and tonumber(waiter.arrival)
  end,
  groups = function(text)
    local weight, _, place = string.match(text, GROUPS.pattern)
    return tonumber(weight) and tonumber(place)
  end,
}
