-- Work out the books of a request shard again and say what differs.
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
--   form string lines for people, json for programs
-- Reply
--   JSON {entries, is_complete, difference_count, differences}, the list possibly as {}; or an
--   array of lines, "ok" first if nothing differs. A difference names key, expected and found; at
--   most 100 are told
-- Errors
--   SCHEMA the shard was written with another schema version
-- Cost
--   O(n log n) in leases, waiters, groups and members up to 100,000 entries (some tenths of a
--   second); above that the totals alone are compared, in O(1), and is_complete is false
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
-- @include lib/read_hash
-- @include lib/shard
-- @include lib/requests/state
-- @include lib/groups
-- @include lib/requests/window
-- @include lib/requests/records
-- luacheck: pop
-- @include lib/requests/capture_audit

local refusal = SCHEMA.refusal()
if refusal then
  return refusal
end
local found = audit()
return form == 'lines' and audit_lines(found) or cjson.encode(found)
