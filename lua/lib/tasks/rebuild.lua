-- The pool's part of a rebuild (docs/adr/0023): it works derived keys out of tasks, leases, claims and runs.
-- @include lib/shard/rebuild
-- @include lib/tasks/check
-- @include lib/tasks/restore
-- @include lib/tasks/settle
-- @include lib/tasks/memory
-- @include lib/runs/rebuild

-- The leases that can be read, by id of their task; what `held` alone has left of one is enough where its task is
-- there. Of two leases of a task the later one counts.
function STATE.read_leases(tasks)
  local found, stored, held = {}, redis.call('HGETALL', K.leases), redis.call('ZRANGE', K.held, 0, -1)
  local function note(id, lease)
    local known = found[lease.task_id]
    lease.id, lease.number = id, tonumber(string.match(id, '~(%d+)$'))
    if lease.number and not LEASES.ended(id) and not (known and known.number >= lease.number) then
      found[lease.task_id] = lease
    end
  end
  for i = 1, #stored, 2 do
    if DAMAGE.can_read.leases(stored[i + 1]) then
      note(stored[i], LEASES.parse(stored[i + 1]))
    end
  end
  for i = 1, #held do
    local part = split(held[i], '\0')
    local id = part[2] == 'lease' and string.match(part[3] or '', '^(.*)~%d+$')
    local task = id and tasks[id]
    if task then
      note(part[3], { member = part[1], task_id = id, group = task.group, signature = task.signature,
        acquired_us = now_text, is_cell = task.run ~= '' })
    end
  end
  return found, held
end

-- The tasks that can be read, by id.
function STATE.read_tasks()
  local tasks, stored = {}, redis.call('HGETALL', K.tasks)
  for i = 1, #stored, 2 do
    if DAMAGE.can_read.tasks(stored[i + 1]) then
      tasks[stored[i]] = TASKS.parse(stored[i + 1])
    else
      redis.call('HDEL', K.tasks, stored[i])
    end
  end
  return tasks
end

-- Restore the task of each lease. The lease of a task that has a result ended when the result was written.
function STATE.restore_tasks(tasks, leases)
  local left = RESTORE.read_left(tasks, leases)
  for id, said in pairs(left) do
    local lease = leases[id]
    local has_ended = lease and not lease.is_cell and redis.call('EXISTS', TASKS.arq_key('result', id)) == 1
    if has_ended then
      meta.finished = meta.finished + 1
      redis.call('ZADD', K.finished, meta.finished * 2, lease.id)
      leases[id] = nil
    elseif not (said.is_cell and not RESTORE.cell(id)) then
      tasks[id] = RESTORE.task(id, said, lease ~= nil)
      TASKS.write(id, tasks[id])
    else
      leases[id] = nil -- of a run that is gone
    end
  end
end

-- Groups keep their weight, tag and debt; one of which nothing is left has the terms of its latest task.
function STATE.reset_groups(tasks)
  local stored, terms = redis.call('HGETALL', K.groups), {}
  for i = 1, #stored, 2 do
    if DAMAGE.can_read.groups(stored[i + 1]) then
      terms[stored[i]] = false
    else
      redis.call('HDEL', K.groups, stored[i])
    end
  end
  for _, task in pairs(tasks) do
    local latest = terms[task.group]
    if latest == nil or (latest and latest.arrival < task.arrival) then
      terms[task.group] = task
    end
  end
  local all = {}
  for name, task in pairs(terms) do
    local g = GROUPS.of(name)
    if task then
      g.weight, g.admitted_limit = tonumber(task.weight), task.limit
    end
    g.waiting, g.running, g.away, g.indexed_us, g.head, g.line, g.out = 0, 0, 0, nil, '', '', ''
    g.member, g.first, g.dirty, all[#all + 1] = nil, nil, true, g
  end
  return all
end

-- Where a task without a lease waits: the key, its entry and its score. `served` has the functions that members serve,
-- as far as that is known.
function STATE.place_of(id, task, delayed_us, served)
  local due_us = delayed_us or task.score * 1000 - meta.last_us + now_us
  if LOST.has_no_payload(task) then
    return 'unserved', CLASSES.unserved_member(id, task), 0
  elseif due_us > now_us then
    return 'delayed', id, int(due_us)
  elseif task.losses > 0 then
    return 'suspect_tasks', LOST.member(id, task), 0
  elseif task.fn ~= '' and next(served) and not served[task.fn] then
    return 'unserved', CLASSES.unserved_member(id, task), 0
  elseif LEDGER.exceeds_limits(task.signature) then
    return 'parked', QUEUE.parked_member(id, task), 0
  end
  return 'fifo', QUEUE.fifo_member(id, task), 0
end

-- Put each task into the key in which it waits.
function STATE.place_tasks(tasks, leases, delayed, served)
  local entries = { queue = {}, delayed = {}, suspect_tasks = {}, unserved = {}, parked = {}, fifo = {} }
  local function add(name, score, entry)
    local list = entries[name]
    list[#list + 1], list[#list + 2] = score, entry
  end
  for id, task in pairs(tasks) do
    local g = GROUPS.of(task.group)
    add('queue', task.score, TASKS.name_of(id))
    if leases[id] then
      g.running = g.running + 1
    else
      local name, entry, score = STATE.place_of(id, task, delayed[id], served)
      add(name, score, entry)
      if name == 'fifo' then
        g.waiting = g.waiting + 1
        g.first = (not g.first or entry < g.first.entry) and { entry = entry, id = id, task = task } or g.first
      else
        g.away = g.away + 1
      end
    end
  end
  for name, list in pairs(entries) do
    write_many('ZADD', K[name], list)
    if name ~= 'queue' then
      meta[name == 'fifo' and 'queued' or name] = #list / 2
    end
  end
end

-- Each group stands in the line of its first task, with the tag that it had.
function STATE.line_up(all)
  local first_tag
  for i = 1, #all do
    local g = all[i]
    if g.first then
      g.tag = g.tag or meta.virtual_time
      g.place = g.place > 0 and g.place or tonumber(g.first.task.arrival)
      g.head = g.first.id
      LINES.line_up(g, CLASSES.of(g.first.task))
      first_tag = math.min(first_tag or g.tag, g.tag)
    end
    g.first = nil
  end
  meta.virtual_time = math.max(meta.virtual_time, first_tag or 0) -- it went with the record, or is later
  LINES.write()
end

-- Take a lease into the books.
function STATE.count_lease(lease, losses)
  local g = GROUPS.of(lease.group)
  LEDGER.take(lease.signature)
  redis.call('ZADD', K.held, 0, lease.member .. '\0lease\0' .. lease.id)
  if meta.policy == 'borrow' then
    BORROW.on_acquire(g, { signature = lease.signature, borrowed = {} })
  end
  LOST.watch(lease.member, lease.id, losses)
end

function STATE.write_leases(tasks, leases, holders)
  local texts = {}
  redis.call('UNLINK', K.leases)
  ledger, stored_ledger, meta.running = {}, {}, 0
  for id, lease in pairs(leases) do
    holders[lease.member], meta.running = true, meta.running + 1
    texts[#texts + 1], texts[#texts + 2] = lease.id, LEASES.packed(lease.member, id, lease.group, lease.signature,
      lease.acquired_us, lease.is_cell)
    STATE.count_lease(lease, tasks[id].losses)
  end
  write_many('HSET', K.leases, texts)
end

-- The functions that members serve, of what each holds; members say them again.
function STATE.reindex_functions(held, holders)
  local served = {}
  for i = 1, #held do
    local part = split(held[i], '\0')
    if part[2] == 'function' and part[3] then
      redis.call('ZADD', K.held, 0, held[i])
      redis.call('HINCRBY', K.functions, part[3], 1)
      holders[part[1]], served[part[3]] = true, true
    end
  end
  return served
end

-- The members that each suspect was lost with; who they were is lost with the key.
function STATE.reindex_losses(tasks)
  local names, kept = read_hash(K.losses), {}
  for id, task in pairs(tasks) do
    if task.losses > 0 then
      local known = names[id] and #split(names[id], ',') == task.losses
      kept[#kept + 1], kept[#kept + 2] = id, known and names[id] or string.rep('unknown,', task.losses - 1) .. 'unknown'
    end
  end
  redis.call('UNLINK', K.losses)
  write_many('HSET', K.losses, kept)
  meta.lost, meta.draining = #kept / 2, ''
end

-- Limits by their claims. Where claims are lost, each limit is claimed by the pool until a member remembers by whom.
function STATE.reindex_limits(are_claims_lost)
  local known, entries = {}, redis.call('ZRANGE', K.claims, '-', '+', 'BYLEX')
  for i = 1, #entries do
    local kind, part = string.sub(entries[i], 1, 1), split(string.sub(entries[i], 2), '\0')
    if kind == '=' or kind == '~' then
      known[part[1]] = true
    end
  end
  local stored = redis.call('HGETALL', K.limits)
  for i = 1, #stored, 2 do
    if are_claims_lost and not known[stored[i]] and tonumber(stored[i + 1]) then
      CLAIMS.set(stored[i], 'pool', stored[i + 1])
    end
    known[stored[i]] = true
  end
  for resource in pairs(known) do
    CLAIMS.apply(resource)
  end
end

function STATE.make_readable()
  if redis.call('HGET', K.meta, 'reindex') == '1' then
    drop_unreadable(DAMAGE.types())
  end
end

function STATE.reindex()
  local are_claims_lost = redis.call('EXISTS', K.claims) == 0
  MEMORY.note_lost(meta.places == 0, are_claims_lost)
  local tasks = STATE.read_tasks()
  local leases, held = STATE.read_leases(tasks)
  local flat, delayed = redis.call('ZRANGE', K.delayed, 0, -1, 'WITHSCORES'), {}
  for i = 1, #flat, 2 do
    delayed[flat[i]] = tonumber(flat[i + 1])
  end
  local last = redis.call('ZRANGE', K.finished, -1, -1, 'WITHSCORES')[2]
  meta.finished = math.floor((tonumber(last) or 0) / 2)
  for _, task in pairs(tasks) do
    meta.places = math.max(meta.places, tonumber(task.arrival) or 0)
  end
  STATE.restore_tasks(tasks, leases)
  RUNS.repair(tasks, leases)
  local derived, types = { 'queue', 'ready', 'signatures', 'fifo', 'delayed', 'parked', 'unserved', 'suspect_tasks',
    'held', 'functions', 'ledger', 'watched', 'idle', 'pushes', 'idle_groups' }, DAMAGE.types()
  for i = 1, #derived do
    redis.call('UNLINK', K[derived[i]]) -- it is worked out of the other keys
  end
  waiting_lines, groups_in_lines = nil, 0
  LINES.load()
  meta.first_task, meta.first_signature, meta.first_since_us = '', '', 0
  local all, holders = STATE.reset_groups(tasks), {}
  STATE.reindex_losses(tasks)
  STATE.reindex_limits(are_claims_lost)
  STATE.place_tasks(tasks, leases, delayed, STATE.reindex_functions(held, holders))
  STATE.write_leases(tasks, leases, holders)
  STATE.line_up(all)
  for i = 1, #types do
    EXPIRY.with_shard(types[i][1])
  end
  REBUILD.keep_members(holders)
end

-- End the recovery: lost jobs are known, and no new lease gets the id of a forgotten one.
function STATE.open()
  LINES.load()
  meta.admissions = math.max(meta.admissions, now_us)
  RESTORE.find_lost()
end
