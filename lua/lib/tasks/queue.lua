-- The fair queue of ready tasks (spec 04, The queue). A task is ready where `fifo` has it, delayed or
-- parked where those do, else it runs: no state is written down that this says already.
local known_tasks = {} -- what was read or written of tasks in this call
local put_off = {} -- tasks that this call has delayed

local function parse_task(text)
  local group_name, arrival, signature, score, tries, run, column, number, fn, losses = string.match(
    text, '^([^|]*)|([^|]*)|([^|]*)|([^|]*)|([^|]*)|([^|]*)|([^|]*)|([^|]*)|([^|]*)|(.*)$')
  return { group = group_name, arrival = arrival, signature = signature, score = score,
    tries = tonumber(tries), run = run, column = column, number = number, fn = fn,
    losses = tonumber(losses) }
end

local function read_task(id)
  local task = known_tasks[id]
  if task == nil then
    local text = redis.call('HGET', K.tasks, id)
    task = text and parse_task(text) or false
    known_tasks[id] = task
  end
  return task
end

local function write_task(id, task)
  known_tasks[id] = task
  may_be_new('tasks')
  redis.call('HSET', K.tasks, id, table.concat({ task.group, task.arrival, task.signature, task.score,
    int(task.tries), task.run, task.column, task.number, task.fn, int(task.losses) }, '|'))
  may_be_new('queue')
  redis.call('ZADD', K.queue, task.score, name_of(id))
end

local function next_arrival()
  return string.format('%016.0f', next_place())
end

local function fifo_member(id, task)
  return task.group .. '\0' .. task.arrival .. '\0' .. id
end

local function first_task(g)
  local first = redis.call('ZRANGE', K.fifo, '[' .. g.name .. '\0', '(' .. g.name .. '\1', 'BYLEX',
    'LIMIT', 0, 1)[1]
  return first and string.match(first, '^[^%z]*%z[^%z]*%z(.*)$')
end

-- A group is not forgotten while tasks of it wait elsewhere.
local function count_away(g, by)
  g.away, g.touched_us, g.dirty = (tonumber(g.away) or 0) + by, now_us, true
end

-- Stand in line with the task that is first now.
local function stand(g)
  g.head = g.waiting > 0 and first_task(g) or ''
  if g.head ~= '' then
    line_up(g, CLASSES.of(read_task(g.head)))
  end
end

-- Stand in line again after a turn was taken, unless the group stands there.
local function restand(g)
  if (g.line or '') == '' then
    stand(g)
  end
end

-- A task that nobody serves, or a suspect, waits beside the line of its group.
function CLASSES.wait_beside(id, task)
  if task.losses > 0 then
    may_be_new('suspect_tasks')
    redis.call('ZADD', K.suspect_tasks, 0, LOST.member(id, task))
    meta.suspect_tasks = meta.suspect_tasks + 1
  else
    may_be_new('unserved')
    redis.call('ZADD', K.unserved, 0, CLASSES.unserved_member(id, task))
    meta.unserved = meta.unserved + 1
  end
  count_away(group(task.group), 1)
end

-- A task that comes back takes its old place among those of its group.
local function enqueue(id, task)
  if task.losses > 0 or not CLASSES.serves(nil, task.fn) then
    emit_task('ready_enqueued', 'task_id', id, 'group', task.group, 'asks', task.signature)
    return CLASSES.wait_beside(id, task)
  end
  local g = group(task.group)
  may_be_new('fifo')
  redis.call('ZADD', K.fifo, 0, fifo_member(id, task))
  g.waiting, g.touched_us, g.dirty = g.waiting + 1, now_us, true
  meta.queued = meta.queued + 1
  emit_task('ready_enqueued', 'task_id', id, 'group', task.group, 'asks', task.signature)
  if g.waiting == 1 then
    enter_line(g)
  elseif task.arrival > read_task(g.head).arrival then
    return
  end
  leave_line(g)
  g.head = id
  line_up(g, CLASSES.of(task))
end

-- Take a group's first task out; the group stands nowhere until it is told to.
local function take_head(g)
  local id = g.head
  local task = read_task(id)
  redis.call('ZREM', K.fifo, fifo_member(id, task))
  leave_line(g)
  g.waiting, g.dirty = g.waiting - 1, true
  meta.queued = meta.queued - 1
  if id == meta.first_task then
    meta.first_task, meta.first_signature, meta.first_since_us = '', '', 0
  end
  return id, task
end

-- Let a task wait for its turn, or first for its time. arq compares a score with clocks, so it is one of
-- the server's clock, from which the shard's time differs after a step back of that clock.
local function let_wait(id, task, available_us, score)
  task.score = int(score or math.floor((available_us - now_us + meta.last_us) / 1000))
  write_task(id, task)
  if available_us <= now_us then
    enqueue(id, task)
    return
  end
  may_be_new('delayed')
  redis.call('ZADD', K.delayed, int(available_us), id)
  meta.delayed = meta.delayed + 1
  count_away(group(task.group), 1)
  put_off[id] = true
end

-- Let a new task wait until an instant of the server's clock, by which it is shown in arq's rounding
-- even where it is past; or for its turn alone.
local function let_wait_until(id, task, instant_us)
  if instant_us then
    local score = math.floor(instant_us / 1000 + 0.5)
    let_wait(id, task, now_us + instant_us - meta.last_us, score)
  else
    let_wait(id, task, now_us)
  end
end

-- A task that was delayed or parked is ready.
local function come_back(id)
  local task = read_task(id)
  count_away(group(task.group), -1)
  enqueue(id, task)
end

local function parked_member(id, task)
  return task.signature .. '\0' .. task.arrival .. '\0' .. id
end

-- A task of a function that nobody serves any more waits beside: its group goes on behind it.
function CLASSES.put_beside(g)
  local id, task = take_head(g)
  CLASSES.wait_beside(id, task)
  stand(g)
end

-- A task that asks for more than a limit can never go: its group goes on behind it.
local function park(g)
  local id, task = take_head(g)
  may_be_new('parked')
  redis.call('ZADD', K.parked, 0, parked_member(id, task))
  meta.parked = meta.parked + 1
  count_away(g, 1)
  stand(g)
  emit_task('admission_denied', 'task_id', id, 'reason', 'never_fits')
end

-- Take a task out that waits, wherever it does; false where it runs.
local function remove_waiting(id, task)
  local g = group(task.group)
  if g.head == id then
    take_head(g)
    stand(g)
  elseif redis.call('ZREM', K.fifo, fifo_member(id, task)) == 1 then
    g.waiting, g.dirty = g.waiting - 1, true
    meta.queued = meta.queued - 1
  elseif redis.call('ZREM', K.delayed, id) == 1 then
    meta.delayed = meta.delayed - 1
    count_away(g, -1)
  elseif redis.call('ZREM', K.parked, parked_member(id, task)) == 1 then
    meta.parked = meta.parked - 1
    count_away(g, -1)
  elseif redis.call('ZREM', K.unserved, CLASSES.unserved_member(id, task)) == 1 then
    meta.unserved = meta.unserved - 1
    count_away(g, -1)
  elseif redis.call('ZREM', K.suspect_tasks, LOST.member(id, task)) == 1 then
    meta.suspect_tasks = meta.suspect_tasks - 1
    count_away(g, -1)
  else
    return false
  end
  return true
end
