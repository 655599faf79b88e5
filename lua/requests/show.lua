-- One instant of a request shard as aligned lines, for an operator with redis-cli.
--
-- KEYS
--   meta               hash    schema, generation, run_id; record, settings, window_<domain> (lib/requests/state);
--                              @member -> number of its last batch, space, its reply
--   aliases            zset    member NUL alias, by cap
--   leases             hash    lease id -> member|domain|group|acquired_us|limit|cuts|effective_max|generation|hold|cost
--   members            zset    member, by expiry in microseconds
--   checks             zset    member, by when to look at it unless its heartbeat comes before
--   intervals          hash    member -> a third of its TTL in microseconds
--   suspects           zset    member to whom nobody listens, by since when; 0 once it was heard of
--   held               zset    member NUL lease, waiter or alias NUL id, by name
--   waiters            hash    attempt id -> member|domain|group|arrival|deadline_us|cost
--   aside              zset    member NUL attempt id of suspects that stand in no line, by name
--   line_chat          zset    place NUL group, by tag
--   line_embedding     zset    place NUL group, by tag
--   line_image         zset    place NUL group, by tag
--   line_healthcheck   zset    place NUL group, by tag
--   fifo               zset    domain NUL group NUL arrival NUL attempt id, by name
--   groups             hash    group -> weight|tag|place|waiting|touched_us|indexed_us
--   idle_groups        zset    group, by last turn in microseconds
--   deadlines          zset    attempt id, by deadline in microseconds
--   holds              zset    lease id, by longest hold in microseconds
--   budgets            hash    budget -> registered|burst|learned|level|at_us|remaining|remaining_at_us|heard_us
--   sharers            zset    member, by ticket of its entry; NUL member, by minus the ticket of its last telling
--   finished           zset    lease id, by order of ending times 2, plus 1 if it expired
--   events             stream  transitions, the last 8192
-- ARGV
--   max_rows integer how many rows of each list, 0..100
-- Reply
--   array of lines: title, totals, then a table each of windows, counters, waiting groups, members
--   and registrations
-- Errors
--   SCHEMA the shard was written with another schema version
-- Cost
--   as requests/snapshot
-- Invariant
--   changes nothing, the clock neither
-- @bind
local GROUP_EXTRA = {}
-- luacheck: push ignore 211 241
-- @include lib/schema
-- @include lib/clock
-- @include lib/time
-- @include lib/int
-- @include lib/real
-- @include lib/shard
-- @include lib/requests/state
-- @include lib/requests/budgets
-- @include lib/groups
-- @include lib/requests/window
-- luacheck: pop
-- @include lib/requests/capture
-- @include lib/table_lines
-- @include lib/requests/capture_text

local refusal = SCHEMA.refusal()
if refusal then
  return refusal
end
return capture_lines(string.match(K.meta, '{rq:(.-)}'), capture(tonumber(max_rows)))
