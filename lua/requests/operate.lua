-- One operation of an operator on a request shard; nobody has to be a member for it.
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
--   schema    string what schema version the operator speaks
--   operation string reset_window, reset_cooldown, override_cap, or settle, which does nothing
--                    but what every operation does first
--   subject   string the domain; for override_cap the cap, "" or 0 for none; else ""
-- Reply
--   JSON [now_us, next_wake_us, value]: the window's limit (0 if it is not born), what was left of
--   the cooldown in microseconds, the static cap, or 0. While next_wake_us is neither 0 nor above
--   now_us, one call did not do all: settle goes on
-- Errors
--   SCHEMA the shard was written with another schema version; NOSHARD nobody has used it; BADCALL
--   an operation that is not one, or not a domain or cap: nothing happened, no key was made
-- Cost
--   O(log n) per operation; besides, in one call, at most 64 grants, 64 denials, 64 members looked at,
--   200 ended (leases, waiters and aliases of members that are gone, those members, overdue holds) and
--   200 waiters set aside or put back; one PTTL, and a PEXPIRE per key that the call may have made
-- Invariant
--   as requests/batch; done twice it leaves what it leaves done once (but for the number of cuts),
--   so it needs no number
-- @bind
-- @include lib/requests/settle
-- @include lib/requests/save

-- A window is born anew under the present settings, as if its domain had never been used: initial
-- limit, ramp, no ceiling, no streak. Its number of cuts goes on by one, so a 429 of a lease that
-- was admitted before cools down and cuts nothing. The cooldown stays: it is reset on its own.
-- Where nobody is registered now, the last known caps stand in for the present ones.
local function reset_window(name)
  local d = STATE.domain(name)
  if not d.born then
    return 0
  end
  local before = d.current_limit
  WINDOW.reset(d, meta.static_cap > 0 and WINDOW.effective_max(name) or d.effective_max)
  emit('request_window_reset', 'domain', name, 'from', int(before), 'to', int(d.current_limit),
    'algorithm', STATE.rule_name())
  local born_at = d.current_limit
  d.current_limit = before
  LIMITS.set(d, born_at, 'reset')
  return born_at
end

local function reset_cooldown(name)
  local d = STATE.domain(name)
  local left_us = math.max(0, d.blocked_until_us - now_us, d.quiet_until_us - now_us)
  if left_us > 0 then
    d.blocked_until_us = math.min(d.blocked_until_us, now_us)
    d.quiet_until_us = math.min(d.quiet_until_us, now_us)
    d.quota_until_us = math.min(d.quota_until_us, now_us)
    emit('request_cooldown_reset', 'domain', name, 'left_us', int(left_us))
  end
  return left_us
end

local function override_cap(cap)
  local before, after = STATE.setting('override_cap', 0), tonumber(cap) or 0
  if before ~= after then
    emit('request_override_cap_changed', 'from', int(before), 'to', int(after))
  end
  if after > 0 then
    STATE.change_setting('override_cap', cap)
  else
    STATE.change_setting('override_cap', '')
  end
  CAPS.recompute()
  return meta.static_cap
end

local function is_domain(name)
  return STATE.place_of_window[name] ~= nil
end

local function is_cap(text)
  return text == '' or (string.match(text, '^%d+$') and #text <= 10)
end

local function is_empty(text)
  return text == ''
end

-- What to do, and what its subject must be.
local OPERATIONS = {
  reset_window = { reset_window, is_domain },
  reset_cooldown = { reset_cooldown, is_domain },
  override_cap = { override_cap, is_cap },
  settle = { function() return 0 end, is_empty },
}

local chosen = OPERATIONS[operation]
if not chosen or not chosen[2](subject) then
  return redis.error_reply('BADCALL ' .. operation .. ' ' .. subject)
end
STATE.load()
if not meta.generation then
  return redis.error_reply('NOSHARD ' .. K.meta)
end
local found = redis.call('HGET', K.meta, 'schema')
if found ~= schema then
  return redis.error_reply('SCHEMA ' .. tostring(found))
end
SETTLING.begin()
local value = chosen[1](subject)
QUEUE.grant()
local wake_us = SETTLING.next_wake_us()
SHARD.save({})
SHARD.publish('')
return '[' .. int(now_us) .. ',' .. int(wake_us) .. ',' .. int(value) .. ']'
