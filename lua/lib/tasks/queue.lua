-- The fair queue of ready tasks (spec 04, The queue). A group stands in the line of its first
-- task's resource signature: in the `open` line while it runs fewer tasks than its admitted limit,
-- else in the `capped` one. So what fits is tested once per signature, and peer pressure is a look
-- at the heads of lines, never a scan of groups.
local heads = {}

local function line_member(g)
  return g.signature .. '\0' .. g.line .. '\0' .. string.format('%024.9f', g.tag) .. '\0'
    .. string.format('%016.0f', g.place) .. '\0' .. g.name
end

local function leave_line(g)
  if (g.line or '') == '' then
    return
  end
  redis.call('ZREM', K.ready, line_member(g))
  heads[g.signature] = nil
  if redis.call('HINCRBY', K.signatures, g.signature, -1) == 0 then
    redis.call('HDEL', K.signatures, g.signature)
  end
  g.line, g.dirty = '', true
end

local function parse_task(text)
  local part = split(text, '|')
  return { state = part[1], group = part[2], arrival = part[3], signature = part[4],
    run = part[5], column = part[6], number = part[7] }
end

local function write_task(id, task)
  redis.call('HSET', K.tasks, id, table.concat({ task.state, task.group, task.arrival,
    task.signature, task.run, task.column, task.number }, '|'))
end

local function read_task(id)
  local text = redis.call('HGET', K.tasks, id)
  return text and parse_task(text)
end

local function fifo_member(id, task)
  return task.group .. '\0' .. task.arrival .. '\0' .. id
end

local function first_task(g)
  local first = redis.call('ZRANGE', K.fifo, '[' .. g.name .. '\0', '(' .. g.name .. '\1', 'BYLEX',
    'LIMIT', 0, 1)[1]
  return first and split(first, '\0')[3]
end

-- Stand where the group belongs now: its first task, tag, place or running count changed.
local function line_up(g)
  leave_line(g)
  local first = g.waiting > 0 and first_task(g)
  if not first then
    return
  end
  local limit = tonumber(g.admitted_limit)
  g.signature = read_task(first).signature
  g.line = (limit and (tonumber(g.running) or 0) >= limit) and 'capped' or 'open'
  g.dirty = true
  redis.call('ZADD', K.ready, 0, line_member(g))
  redis.call('HINCRBY', K.signatures, g.signature, 1)
  heads[g.signature] = nil
end

local function enqueue(id, task)
  local g = group(task.group)
  task.state = 'ready'
  write_task(id, task)
  redis.call('ZADD', K.fifo, 0, fifo_member(id, task))
  leave_line(g)
  if g.waiting == 0 then
    enter_line(g)
  end
  g.waiting, g.touched_us, g.dirty = g.waiting + 1, now_us, true
  meta.queued = meta.queued + 1
  line_up(g)
end

local function dequeue(id, task)
  local g = group(task.group)
  redis.call('ZREM', K.fifo, fifo_member(id, task))
  leave_line(g)
  g.waiting, g.dirty = g.waiting - 1, true
  meta.queued = meta.queued - 1
  return g
end

local function delay(id, task, available_us)
  task.state = 'delayed'
  write_task(id, task)
  redis.call('ZADD', K.delayed, int(available_us), id)
  meta.delayed = meta.delayed + 1
end

local function head_of(signature, line)
  local known = heads[signature]
  if not known then
    known = {}
    heads[signature] = known
  end
  if known[line] == nil then
    local prefix = signature .. '\0' .. line
    local first = redis.call('ZRANGE', K.ready, '[' .. prefix .. '\0', '(' .. prefix .. '\1',
      'BYLEX', 'LIMIT', 0, 1)[1]
    if first then
      local part = split(first, '\0')
      known[line] = { order = part[3] .. part[4], group = part[5] }
    else
      known[line] = false
    end
  end
  return known[line]
end
