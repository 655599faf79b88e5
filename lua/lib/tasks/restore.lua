-- Tasks of which no record is left, made again of what names them elsewhere (docs/adr/0023): a cell of its run's plan,
-- a job of the terms in its payload, any task of the lines and leases that it stood in. One whose payload is gone, too,
-- is lost: it waits in `unserved`, under a function that nobody serves, until a member has told its callers.
-- @include lib/tasks/leases
-- @include lib/runs/check
local RESTORE = { group = 'local/default', signature = 'submission=1', asked_at_once = 500,
  terms = 'forebay|([^|]*)|([^|]*)|([^|]*)|([^|]*)|([^|]*)|' }

-- A name as it is encoded in keys.
function RESTORE.encoded(name)
  return (string.gsub(name, '[^%w._~-]', function(c) return string.format('%%%02X', string.byte(c)) end))
end

-- The id of a task by its name: a cell's names its run, column and place.
function RESTORE.id_of(name)
  local run, column, place = string.match(name, '^(.+):(.+):([gr]%d+)$')
  local cell = run and RESTORE.encoded(run) .. ':' .. RESTORE.encoded(column) .. ':' .. place
  return cell and RESTORE.cell(cell) and cell or RESTORE.encoded(name)
end

-- Note the facts of tasks without a record from the entries of one sorted set; `fields` names the parts of an entry.
function RESTORE.note_entries(left, tasks, name, fields)
  local entries = redis.call('ZRANGE', K[name], 0, -1, 'WITHSCORES')
  for i = 1, #entries, 2 do
    local part, said = split(entries[i], '\0'), { [name] = tonumber(entries[i + 1]) }
    for j = 1, #fields do
      said[fields[j]] = part[j]
    end
    local id = said.name and RESTORE.id_of(said.name) or said.id
    if id and not tasks[id] then
      left[id] = left[id] or {}
      for field, value in pairs(said) do
        left[id][field] = value
      end
    end
  end
end

-- The remaining facts of tasks without a record, by id; `leases` are those that are left, by id of their task.
function RESTORE.read_left(tasks, leases)
  local left = {}
  if redis.call('ZCARD', K.queue) > redis.call('HLEN', K.tasks) or redis.call('HLEN', K.tasks) == 0 then
    RESTORE.note_entries(left, tasks, 'queue', { 'name' })
    RESTORE.note_entries(left, tasks, 'fifo', { 'group', 'arrival', 'id' })
    RESTORE.note_entries(left, tasks, 'delayed', { 'id' })
    RESTORE.note_entries(left, tasks, 'parked', { 'signature', 'arrival', 'id' })
    RESTORE.note_entries(left, tasks, 'unserved', { 'fn', 'arrival', 'id' })
    RESTORE.note_entries(left, tasks, 'suspect_tasks', { 'arrival', 'id' })
  end
  for id, lease in pairs(leases) do
    if not tasks[id] then
      left[id] = left[id] or {}
      left[id].group, left[id].signature, left[id].is_cell = lease.group, lease.signature, lease.is_cell
    end
  end
  return left
end

-- The record of a cell; nil where the id is no cell's of a run that there is.
function RESTORE.cell(id)
  local run, name, scope, number = string.match(id, '^([^:]+):([^:]+):([gr])(%d+)$')
  local plan = run and RUNS.plan_of(run)
  for index = 1, plan and #plan.columns or 0 do
    local column = plan.columns[index]
    if column.name == name and column.scope == scope then
      return { group = column.group, signature = column.signature, run = run, column = int(index), number = number,
        fn = column.fn or '', weight = real(column.weight), limit = column.admitted_limit }
    end
  end
  return nil
end

-- The record of a job by its payload, which bears its terms where a pool of arq's jobs wrote it.
function RESTORE.job(payload, left)
  local group_name, signature, fn, weight, limit = string.match(payload or '', RESTORE.terms)
  if not group_name and left.group then
    local class = GROUPS.of(left.group).signature or ''
    group_name, signature = left.group, left.signature or string.match(class, '^([^;]+)')
    fn = left.fn or string.match(class, ';([^;]*)$')
  end
  if not group_name or not signature then
    return nil
  end
  return { group = group_name, signature = signature, run = '', column = '', number = '', fn = fn or '',
    weight = weight or real(GROUPS.of(group_name).weight), limit = limit or GROUPS.of(group_name).admitted_limit or '' }
end

-- Mark a task as lost.
function RESTORE.lose(task)
  task.fn, task.losses = LOST.no_payload .. task.fn, 0
end

-- A record of a task that is made again. It stands where it stood, or first of its group.
function RESTORE.task(id, left, is_running)
  local payload = TASKS.payload_of(id)
  local task = RESTORE.cell(id) or RESTORE.job(payload, left)
  if not task or (task.run == '' and not payload and not is_running) then
    task = task or { group = left.group or RESTORE.group, signature = RESTORE.signature, run = '', column = '',
      number = '', fn = left.fn or '', weight = '1', limit = '' }
    RESTORE.lose(task)
  end
  task.arrival = left.arrival or string.format('%016.0f', 0)
  task.score = int(left.queue or math.floor(meta.last_us / 1000))
  task.tries = 0
  local names = not LOST.has_no_payload(task) and redis.call('HGET', K.losses, id)
  task.losses = names and #split(names, ',') or 0
  return task
end

-- The jobs among some tasks that have no payload.
function RESTORE.without_payload(ids)
  local gone = {}
  for from = 1, #ids, RESTORE.asked_at_once do
    local keys = {}
    for i = from, math.min(#ids, from + RESTORE.asked_at_once - 1) do
      keys[#keys + 1] = TASKS.arq_key('job', ids[i])
    end
    if redis.call('EXISTS', unpack(keys)) < #keys then
      for i = 1, #keys do
        if redis.call('EXISTS', keys[i]) == 0 then
          gone[#gone + 1] = ids[from + i - 1]
        end
      end
    end
  end
  return gone
end

-- At the end of a rebuild, mark waiting jobs without a payload as lost.
function RESTORE.find_lost()
  local stored, ids, runs_now = redis.call('HGETALL', K.tasks), {}, {}
  LEASES.flush()
  local texts = redis.call('HVALS', K.leases)
  for i = 1, #texts do
    runs_now[LEASES.parse(texts[i]).task_id] = true
  end
  for i = 1, #stored, 2 do
    local task = TASKS.parse(stored[i + 1])
    if task.run == '' and not runs_now[stored[i]] and not LOST.has_no_payload(task) then
      ids[#ids + 1] = stored[i]
    end
  end
  ids = RESTORE.without_payload(ids)
  for i = 1, #ids do
    local task = TASKS.read(ids[i])
    QUEUE.remove(ids[i], task)
    LOST.forget(ids[i], task)
    RESTORE.lose(task)
    TASKS.write(ids[i], task)
    CLASSES.wait_beside(ids[i], task)
  end
end

-- The first lost jobs that were not reported yet, each with its function.
function RESTORE.lost_text()
  local found = meta.unserved > 0 and redis.call('ZRANGE', K.unserved, '[' .. LOST.no_payload, '(' .. LOST.no_payload .. '\127',
    'BYLEX', 'LIMIT', 0, 64) or {}
  for i = 1, #found do
    local part = split(found[i], '\0')
    found[i] = '["' .. part[3] .. '","' .. string.sub(part[1], #LOST.no_payload + 1) .. '"]'
  end
  return '[' .. table.concat(found, ',') .. ']'
end
