-- Tasks by id, as they are kept from their submit to their end.
-- @include lib/shard/expiry
-- @include lib/shard/damage
-- @include lib/tasks/state
local TASKS = {}
local known_tasks = {} -- what was read or written of tasks in this call

-- arq's keys and the pool's queue bear a task's id as its user wrote it, as arq's Job asks for it; in
-- every other place it stands with escapes, so that it can break no packed value.
function TASKS.name_of(id)
  if not string.find(id, '%', 1, true) then
    return id
  end
  return (string.gsub(id, '%%(%x%x)', function(hex) return string.char(tonumber(hex, 16)) end))
end

function TASKS.arq_key(kind, id)
  return 'arq:' .. kind .. ':' .. TASKS.name_of(id)
end

-- Set one of arq's keys of a task, for ever where there is no TTL.
function TASKS.set(kind, id, value, ttl_ms)
  if ttl_ms == '' then
    redis.call('SET', TASKS.arq_key(kind, id), value)
  else
    redis.call('SET', TASKS.arq_key(kind, id), value, 'PX', ttl_ms)
  end
end

function TASKS.parse(text)
  local group_name, arrival, signature, score, tries, run, column, number, fn, losses, weight, limit = string.match(
    text, '^([^|]*)|([^|]*)|([^|]*)|([^|]*)|([^|]*)|([^|]*)|([^|]*)|([^|]*)|([^|]*)|([^|]*)|([^|]*)|(.*)$')
  return { group = group_name, arrival = arrival, signature = signature, score = score,
    tries = tonumber(tries), run = run, column = column, number = number, fn = fn,
    losses = tonumber(losses), weight = weight, limit = limit }
end

function TASKS.read(id)
  local task = known_tasks[id]
  if task == nil then
    local text = redis.call('HGET', K.tasks, id)
    task = text and TASKS.parse(text) or false
    known_tasks[id] = task
  end
  return task
end

-- A task that another key names: its record must be there.
function TASKS.named(id)
  return TASKS.read(id) or DAMAGE.raise('tasks')
end

-- Read tasks that a batch will ask for.
function TASKS.read_ahead(ids)
  local texts = #ids > 0 and redis.call('HMGET', K.tasks, unpack(ids)) or {}
  for i = 1, #texts do
    if known_tasks[ids[i]] == nil then
      known_tasks[ids[i]] = texts[i] and TASKS.parse(texts[i])
    end
  end
end

-- The number of tasks: each is in one place.
function TASKS.count()
  return meta.queued + meta.delayed + meta.parked + meta.running + meta.unserved + meta.suspect_tasks
end

function TASKS.write(id, task)
  known_tasks[id] = task
  if TASKS.count() == 0 then
    EXPIRY.with_shard('tasks')
    EXPIRY.with_shard('queue')
  end
  redis.call('HSET', K.tasks, id, table.concat({ task.group, task.arrival, task.signature, task.score,
    int(task.tries), task.run, task.column, task.number, task.fn, int(task.losses), task.weight,
    task.limit }, '|'))
  redis.call('ZADD', K.queue, task.score, TASKS.name_of(id))
end
