-- One operation of an operator on a request shard; nobody has to be a member for it.
--
-- KEYS
-- @include lib/requests/keys
-- ARGV
--   schema    string what schema version the operator speaks
--   operation string reset_window, reset_cooldown, override_cap, evict, or settle, which does nothing
--                    but what every operation does first
--   subject   string the domain; for override_cap the cap, "" or 0 for none; for evict the lease id; else ""
--   set_by    string user@host of whom the operation is, percent-encoded; "" or left out where it is not known
-- Reply
--   JSON [now_us, next_wake_us, value]: the window's limit (0 if it is not born), what was left of
--   the cooldown in microseconds, the static cap, 1 for a lease that was ended (0: there is none,
--   -1: the shard is being rebuilt), or 0. While next_wake_us is neither 0 nor above
--   now_us, one call did not do all: settle goes on
-- Errors
--   SCHEMA the shard was written with another schema version; NOSHARD nobody has used it; DAMAGED
--   a key cannot be read, and members rebuild the shard; BADCALL an operation that is not one, or not a domain, cap
--   or lease id: nothing happened, no key was made
-- Cost
--   O(log n) per operation, an INFO, and on a server that started anew the begin of a rebuild, as member/join;
--   besides, in one call, at most 64 grants, 64 denials, 64 members looked at,
--   200 ended (leases, waiters and aliases of members that are gone, those members, overdue holds) and
--   200 waiters set aside or put back; one PTTL, and a PEXPIRE per key that the call may have made
-- Invariant
--   as requests/batch; done twice it leaves what it leaves done once (but for the number of cuts),
--   so it needs no number
-- @bind
-- @include lib/shard/look
-- @include lib/shard/recovery
-- @include lib/requests/settle
-- @include lib/requests/rebuild
-- @include lib/requests/save

-- Reset a window under the present settings, as if its domain had never been used: initial
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
    emit('request_override_cap_changed', 'from', int(before), 'to', int(after), 'by', set_by or '')
    MEMBERS.notify_set()
  end
  STATE.change_setting('override_cap', after > 0 and cap or '')
  redis.call('HSET', K.meta, 'cap_set_in', meta.generation) -- no memory of before a loss undoes it
  CAPS.recompute()
  return meta.static_cap
end

-- End a lease as an expired hold: its holder gets a notice, and its later release is stale.
local function evict(lease_id)
  if meta.recovering_us > 0 then
    return -1 -- its holder may still be about to state it
  end
  local text = LEASES.text(lease_id)
  if not text then
    DAMAGE.check()
    return 0
  end
  local lease = LEASES.parse(text)
  LEASES.lose(lease_id, lease, 'evicted')
  SHARD.notify(lease.member, '["lost","' .. lease_id .. '","evicted"]')
  return 1
end

local function is_lease_id(text)
  return string.match(text, '^[%w._~%%-]+$')
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

-- The operations, and the checks of their subjects.
local OPERATIONS = {
  reset_window = { reset_window, is_domain },
  reset_cooldown = { reset_cooldown, is_domain },
  override_cap = { override_cap, is_cap },
  evict = { evict, is_lease_id },
  settle = { function() return 0 end, is_empty },
}

-- A server that started anew, or was emptied, may have lost what members hold, and their heartbeats were due while it was
-- away: where none has joined again yet, this call begins the rebuild in the place of its join.
local function note_loss()
  local stored = redis.call('HMGET', K.meta, 'schema', 'generation', 'run_id', 'record')
  local run_id = server_run_id()
  if stored[3] ~= run_id then
    local head = RECOVERY.begin_for_operator(stored[2] and 'restarted' or 'lost', stored, { schema = schema,
      remembered_id = stored[3], generation = string.sub(run_id, 1, 8) .. int(server_time_us()) })
    HEAD.write(head)
  end
end

local function run_operation(call)
  LOOK.check_head()
  local found, generation = unpack(redis.call('HMGET', K.meta, 'schema', 'generation'))
  if not generation and not RECOVERY.is_remembered(nil) then
    return redis.error_reply('NOSHARD ' .. K.meta)
  elseif generation and found ~= schema then
    return redis.error_reply('SCHEMA ' .. tostring(found))
  end
  note_loss()
  STATE.load()
  if meta.recovering_us > 0 then
    REBUILD.continue()
  end
  SETTLING.begin()
  local value = call(subject)
  QUEUE.grant()
  local wake_us = SETTLING.next_wake_us()
  SHARD.save({})
  SHARD.publish('')
  return '[' .. int(now_us) .. ',' .. int(wake_us) .. ',' .. int(value) .. ']'
end

local chosen = OPERATIONS[operation]
if not chosen or not chosen[2](subject) then
  return redis.error_reply('BADCALL ' .. operation .. ' ' .. subject)
end
local is_whole, reply = pcall(run_operation, chosen[1])
if is_whole then
  return reply
end
local told = LOOK.error_reply(reply)
DAMAGE.mark(DAMAGE.names(DAMAGE.text(reply))[1] or 'a record')
return told
