-- Effects of time, and the wake-ups of members after changes.
-- @include lib/shard/members
-- @include lib/tasks/pushes
-- @include lib/runs/row_groups
-- In one call; idle: members that are looked at before enough are woken, looks: at what these serve.
local SETTLING = { due = 64, woken = 64, idle = 512, looks = 4096 }

-- Besides leases a member holds the functions that its workers run.
function MEMBERS.drop(entry, _, name)
  redis.call('ZREM', K.held, entry)
  CLASSES.forget_served()
  if redis.call('HINCRBY', K.functions, name, -1) <= 0 then
    redis.call('HDEL', K.functions, name)
  end
end

MEMBERS.end_rest = DRIVERS.end_member

function MEMBERS.forget(member)
  if meta.draining == member then
    meta.draining = ''
  end
  redis.call('ZREM', K.idle, member)
  redis.call('HDEL', K.pushes, member)
end

function SETTLING.enqueue_due()
  if meta.delayed == 0 then
    return
  end
  local due = redis.call('ZRANGE', K.delayed, '-inf', int(now_us), 'BYSCORE', 'LIMIT', 0,
    SETTLING.due)
  for i = 1, #due do
    redis.call('ZREM', K.delayed, due[i])
    meta.delayed = meta.delayed - 1
    QUEUE.come_back(due[i])
  end
end

function SETTLING.begin()
  LINES.load()
  if meta.running > 0 and next(stored_ledger) == nil and next(ledger) == nil then
    DAMAGE.raise('ledger') -- before anything is granted without it
  elseif meta.limited > 0 and not meta.are_limits_there and meta.recovering_us == 0 then
    DAMAGE.raise('limits')
  end
  local function restore() return true end -- nothing of a pool stands aside: a member asks anew
  SUSPECTS.clear_heard(restore)
  SUSPECTS.check(MEMBERS.finish, restore)
  SETTLING.enqueue_due()
  CLAIMS.sort_parked()
end

-- Push the only ready task to an idle member; else wake as many as the ready tasks need, the most free
-- slots first: each asks for what it can take, and the one that takes less than there is wakes the next.
-- A suspect is idle no more: it asks anew once it is listened to again.
function SETTLING.wake_idle()
  local ready = meta.queued + meta.suspect_tasks
  if ready == 0 or redis.call('ZCARD', K.idle) == 0 or (meta.suspect_tasks == 0 and not SELECT.next()) then
    return
  end
  local functions, classes = CLASSES.waiting_functions()
  local wanted, woken, passed, looked_at, looks, heads_by_kind = ready, 0, 0, 0, 0, {}
  local found, at = {}, 1
  while wanted > 0 and woken < SETTLING.woken and looked_at < SETTLING.idle and looks < SETTLING.looks do
    if at > #found then
      found, at = redis.call('ZRANGE', K.idle, '+inf', '(0', 'BYSCORE', 'REV', 'LIMIT', passed,
        math.min(SETTLING.woken, 1 + 3 * looked_at), 'WITHSCORES'), 1
    end
    local member, slots = found[at], tonumber(found[at + 1])
    if not member then
      return
    end
    at, looked_at, looks = at + 2, looked_at + 1, looks + 1 + #functions
    local kind = CLASSES.kind_of(member, functions)
    local looks_behind = string.find(kind, '0', 1, true)
    if meta.lost > 0 or looks_behind then
      kind = member -- what it serves behind other first tasks is its own matter
    end
    local head = heads_by_kind[kind]
    if head == nil then
      head = SELECT.next(member) or false
      looks = looks + classes + (looks_behind and classes + CLASSES.groups_behind or 0)
      heads_by_kind[kind] = head
    end
    if not head then
      passed = passed + 1
    elseif not SUSPECTS.is_present(member) then
      redis.call('ZREM', K.idle, member)
    elseif ready == 1 and not head.suspect and PUSHES.push(head, member, slots) then
      return
    else
      redis.call('ZREM', K.idle, member)
      SHARD.notify(member, '["work"]')
      wanted, woken = wanted - slots, woken + 1
    end
  end
end

-- Notify idle members of the instant at which the first delayed task is due, if that has changed.
function PUSHES.notify_due()
  if not next(put_off) then
    return
  end
  local first = redis.call('ZRANGE', K.delayed, 0, 0, 'WITHSCORES')
  if not first[1] or not put_off[first[1]] then
    return
  end
  local idle = redis.call('ZRANGE', K.idle, '+inf', '(0', 'BYSCORE', 'REV', 'LIMIT', 0, SETTLING.woken)
  for i = 1, #idle do
    if idle[i] ~= member_id then
      SHARD.notify(idle[i], '["due",' .. int(tonumber(first[2])) .. ']')
    end
  end
end

-- The last step of a call: note the first task without room, and wake idle members.
function SETTLING.finish()
  RUNS.begin_rounds()
  RUNS.look_for_room()
  CLASSES.sort_served()
  CLAIMS.sort_parked()
  RESERVE.note_first()
  SETTLING.wake_idle()
  PUSHES.notify_due()
end

-- The instant at which a timer of this pool is due, or 0.
function SETTLING.next_wake_us()
  if meta.recovering_us > 0 then
    return meta.recovering_us
  elseif meta.queued + meta.delayed + meta.running + meta.parked + meta.unserved + meta.suspect_tasks == 0 then
    return 0
  elseif moves_left <= 0 then
    return now_us
  end
  local wake = SUSPECTS.next_check_us() or 0
  local due = meta.delayed > 0 and tonumber(redis.call('ZRANGE', K.delayed, 0, 0, 'WITHSCORES')[2])
  due = due or nil
  local cooled = COOLING.next_us()
  if cooled and (not due or cooled < due) then
    due = cooled
  end
  if due and (wake == 0 or due < wake) then
    wake = due
  end
  return wake
end
