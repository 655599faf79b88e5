-- The fair queue of ready tasks (design 04, *The queue*). A task is ready where `fifo` has it, delayed or
-- parked where those do, else it runs: no state is written down that this says already.
-- @include lib/tasks/tasks
-- @include lib/tasks/classes
local QUEUE = {}
local LOST = { usual_max = 3, looked_at = 32, no_payload = '~lost~' } -- see lib/tasks/lost
-- Tasks that this call has delayed.
local put_off = {} -- luacheck: ignore 241

function QUEUE.next_arrival()
  return string.format('%016.0f', GROUPS.next_place())
end

function QUEUE.fifo_member(id, task)
  return task.group .. '\0' .. task.arrival .. '\0' .. id
end

function QUEUE.first_task(g)
  local first = redis.call('ZRANGE', K.fifo, '[' .. g.name .. '\0', '(' .. g.name .. '\1', 'BYLEX',
    'LIMIT', 0, 1)[1]
  return first and string.match(first, '^[^%z]*%z[^%z]*%z(.*)$')
end

-- A group is not forgotten while tasks of it wait elsewhere.
function QUEUE.count_away(g, by)
  g.away = (tonumber(g.away) or 0) + by
  GROUPS.touch(g)
end

-- Put a group into the line of its first task.
function QUEUE.refresh_head(g)
  g.head = g.waiting > 0 and QUEUE.first_task(g) or ''
  if g.head ~= '' then
    LINES.line_up(g, CLASSES.of(TASKS.named(g.head)))
  end
end

-- Stand in line again after a turn was taken, unless the group stands there.
function QUEUE.line_up_again(g)
  if (g.line or '') == '' then
    QUEUE.refresh_head(g)
  end
end

function LOST.member(id, task)
  return task.arrival .. '\0' .. id
end

-- Add an entry to a sorted set of tasks that do not stand in line, and count it.
function QUEUE.put_beside(name, entry, score)
  if meta[name] == 0 then
    EXPIRY.with_shard(name)
  end
  redis.call('ZADD', K[name], score or 0, entry)
  meta[name] = meta[name] + 1
end

-- Put a task aside that no member serves, or that is a suspect.
function CLASSES.wait_beside(id, task)
  if task.losses > 0 then
    QUEUE.put_beside('suspect_tasks', LOST.member(id, task))
  else
    QUEUE.put_beside('unserved', CLASSES.unserved_member(id, task))
  end
  QUEUE.count_away(GROUPS.of(task.group), 1)
end

-- Return a task to its old place among those of its group.
function QUEUE.enqueue(id, task)
  if task.losses > 0 or not CLASSES.serves(nil, task.fn) then
    STATE.emit_task('ready_enqueued', 'task_id', id, 'group', task.group, 'asks', task.signature)
    return CLASSES.wait_beside(id, task)
  end
  local g = GROUPS.of(task.group)
  if meta.queued == 0 then
    EXPIRY.with_shard('fifo')
  end
  redis.call('ZADD', K.fifo, 0, QUEUE.fifo_member(id, task))
  g.waiting = g.waiting + 1
  GROUPS.touch(g)
  meta.queued = meta.queued + 1
  STATE.emit_task('ready_enqueued', 'task_id', id, 'group', task.group, 'asks', task.signature)
  if g.waiting == 1 then
    GROUPS.enter_line(g)
  elseif task.arrival > TASKS.named(g.head).arrival then
    return
  end
  LINES.leave(g)
  g.head = id
  LINES.line_up(g, CLASSES.of(task))
end

-- Remove a group's first task; the group is in no line until `refresh_head`.
function QUEUE.take_head(g)
  local id = g.head
  local task = TASKS.named(id)
  redis.call('ZREM', K.fifo, QUEUE.fifo_member(id, task))
  LINES.leave(g)
  g.waiting, g.dirty = g.waiting - 1, true
  meta.queued = meta.queued - 1
  if id == meta.first_task then
    meta.first_task, meta.first_signature, meta.first_since_us = '', '', 0
  end
  return id, task
end

-- Let a task wait for its turn, or first for its time. arq compares a score with clocks, so it is one of
-- the server's clock, from which the shard's time differs after a step back of that clock.
function QUEUE.let_wait(id, task, available_us, score)
  task.score = int(score or math.floor((available_us - now_us + meta.last_us) / 1000))
  TASKS.write(id, task)
  if available_us <= now_us then
    QUEUE.enqueue(id, task)
    return
  end
  QUEUE.put_beside('delayed', id, int(available_us))
  QUEUE.count_away(GROUPS.of(task.group), 1)
  put_off[id] = true
end

-- Let a new task wait until an instant of the server's clock, by which it is shown in arq's rounding
-- even where it is past; or for its turn alone.
function QUEUE.let_wait_until(id, task, instant_us)
  if instant_us then
    local score = math.floor(instant_us / 1000 + 0.5)
    QUEUE.let_wait(id, task, now_us + instant_us - meta.last_us, score)
  else
    QUEUE.let_wait(id, task, now_us)
  end
end

-- A task that was delayed or parked is ready.
function QUEUE.come_back(id)
  local task = TASKS.read(id)
  QUEUE.count_away(GROUPS.of(task.group), -1)
  QUEUE.enqueue(id, task)
end

function QUEUE.parked_member(id, task)
  return task.signature .. '\0' .. task.arrival .. '\0' .. id
end

-- Put a task aside whose function no member serves any more; its group goes on with the next one.
function CLASSES.put_beside(g)
  local id, task = QUEUE.take_head(g)
  CLASSES.wait_beside(id, task)
  QUEUE.refresh_head(g)
end

-- Park a task that needs more than a limit; its group goes on with the next one.
function QUEUE.park(g)
  local id, task = QUEUE.take_head(g)
  QUEUE.put_beside('parked', QUEUE.parked_member(id, task))
  QUEUE.count_away(g, 1)
  QUEUE.refresh_head(g)
  STATE.emit_task('admission_denied', 'task_id', id, 'reason', 'never_fits')
end

-- The entries of a task that waits elsewhere than in its group's line, by the key that may have it.
function QUEUE.beside(id, task)
  return { delayed = id, parked = QUEUE.parked_member(id, task), unserved = CLASSES.unserved_member(id, task),
    suspect_tasks = LOST.member(id, task) }
end

-- Remove a waiting task from its place; false if it runs.
function QUEUE.remove(id, task)
  local g = GROUPS.of(task.group)
  if g.head == id then
    QUEUE.take_head(g)
    QUEUE.refresh_head(g)
  elseif redis.call('ZREM', K.fifo, QUEUE.fifo_member(id, task)) == 1 then
    g.waiting, g.dirty = g.waiting - 1, true
    meta.queued = meta.queued - 1
  else
    for kind, entry in pairs(QUEUE.beside(id, task)) do
      if redis.call('ZREM', K[kind], entry) == 1 then
        meta[kind] = meta[kind] - 1
        QUEUE.count_away(g, -1)
        return true
      end
    end
    return false
  end
  return true
end
