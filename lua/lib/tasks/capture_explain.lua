-- Facts that explain why a task, a group, a run or a whole pool waits, of one instant. Sentences are made of them by
-- coordinator/tasks/explaining.py, and the policy's part is decided by coordinator/tasks/policies.py.
-- @include lib/listening
-- @include lib/tasks/capture_view
-- @include lib/runs/state
local EXPLAIN = { leases_read = 5000, oldest = 3, tasks_of_run = 200, rounds = 20, per_round = 1000, at_once = 200 }

-- Call `take` with each field and value of a hash that match, until it returns true; at most `rounds` commands.
function EXPLAIN.scan(key, pattern, take)
  local cursor, rounds = '0', 0
  repeat
    local found = redis.call('HSCAN', key, cursor, 'MATCH', pattern, 'COUNT', EXPLAIN.per_round)
    cursor, rounds = found[1], rounds + 1
    for i = 1, #found[2], 2 do
      if take(found[2][i], found[2][i + 1]) then
        return
      end
    end
  until cursor == '0' or rounds == EXPLAIN.rounds
end

function EXPLAIN.lease_facts(id, lease)
  return { lease_id = id, member_id = lease.member, task_id = lease.task_id, group = lease.group,
    acquired_us = lease.acquired_us }
end

-- The lease of a task; nil where it runs not.
function EXPLAIN.lease_of(task_id)
  local facts
  EXPLAIN.scan(K.leases, task_id .. '~*', function(id, text)
    local lease = LEASES.parse(text)
    facts = lease.task_id == task_id and EXPLAIN.lease_facts(id, lease) or nil
    return facts
  end)
  if facts then
    local expiry = redis.call('ZSCORE', K.members, facts.member_id)
    facts.expires_in_us = expiry and int(tonumber(expiry) - now_us) or ''
  end
  return facts
end

-- Where a task is: line, delayed, parked, unserved, suspect_tasks or, in none of them, on a lease.
function EXPLAIN.place_of(id, task)
  if redis.call('ZSCORE', K.fifo, QUEUE.fifo_member(id, task)) then
    return 'line'
  end
  for kind, entry in pairs(QUEUE.beside(id, task)) do
    local score = redis.call('ZSCORE', K[kind], entry)
    if score then
      return kind, score
    end
  end
  return 'running'
end

function EXPLAIN.task(id)
  local task = TASKS.read(id)
  if not task then
    local ttl_ms = redis.pcall('PTTL', TASKS.arq_key('result', id)) -- a reader may lack the right to arq's keys
    return type(ttl_ms) == 'number' and ttl_ms ~= -2 and { task_id = id, place = 'finished' } or nil
  end
  local place, score = EXPLAIN.place_of(id, task)
  local facts = { task_id = id, place = place, group = task.group, signature = task.signature, fn = task.fn,
    tries = task.tries, losses = task.losses, run = task.run, available_ms = task.score,
    lost_with = redis.call('HGET', K.losses, id) or '' }
  if place == 'line' then
    facts.ahead = redis.call('ZLEXCOUNT', K.fifo, '[' .. task.group .. '\0', '(' .. QUEUE.fifo_member(id, task))
  elseif place == 'delayed' then
    facts.due_us = int(tonumber(score))
  elseif place == 'running' then
    facts.lease = EXPLAIN.lease_of(id)
  end
  return facts
end

-- Add to a row of the view how its group stands in line, and what holds its first task back.
function EXPLAIN.complete(row, kept)
  local g = GROUPS.of(row.name)
  row.is_in_line = (g.line or '') ~= ''
  row.head, row.fn, row.holds, row.in_line = '', '', '', 0
  if row.is_in_line then
    row.head, row.fn, row.in_line = g.head, CLASSES.function_of(g.signature), g.waiting
    row.holds = SELECT.holds_back(g.signature, kept) or ''
    row.fits = row.holds == ''
  end
end

-- The rows of the view and those of other groups that are asked about.
function EXPLAIN.groups(list, names)
  local kept, listed = RESERVE.kept(), {}
  for i = 1, #list do
    listed[list[i].name] = true
  end
  for i = 1, #names do
    if not listed[names[i]] and redis.call('HEXISTS', K.groups, names[i]) == 1 then
      local row = VIEW.of(GROUPS.of(names[i]))
      row.demand, row.fits, list[#list + 1], listed[names[i]] = {}, false, row, true
    end
  end
  for i = 1, #list do
    EXPLAIN.complete(list[i], kept)
  end
end

function EXPLAIN.members(rows)
  local stored, list = redis.call('ZRANGE', K.members, 0, rows - 1, 'WITHSCORES'), {}
  for i = 1, #stored, 2 do
    local name = stored[i]
    local served = redis.call('ZRANGE', K.held, '[' .. name .. '\0function\0', '(' .. name .. '\0function\1', 'BYLEX',
      'LIMIT', 0, rows)
    for j = 1, #served do
      served[j] = split(served[j], '\0')[3]
    end
    list[#list + 1] = { member_id = name, expires_in_us = int(tonumber(stored[i + 1]) - now_us), functions = served,
      lease_count = redis.call('ZLEXCOUNT', K.held, '[' .. name .. '\0lease\0', '(' .. name .. '\0lease\1'),
      free_slots = tonumber(redis.call('ZSCORE', K.idle, name)) or 0, watches = redis.call('HGET', K.watched, name) or '' }
  end
  return list
end

-- The smallest claim of a resource that counts, or else that rests.
function EXPLAIN.claim_of(resource)
  for _, kind in ipairs({ '=', '~' }) do
    local entry = redis.call('ZRANGE', K.claims, '[' .. kind .. resource .. '\0', '(' .. kind .. resource .. '\1', 'BYLEX',
      'LIMIT', 0, 1)[1]
    if entry then
      return split(entry, '\0')[3]
    end
  end
  return ''
end

-- Keep a lease where it is among the oldest of a resource.
function EXPLAIN.keep_oldest(list, facts)
  list[#list + 1] = facts
  table.sort(list, function(a, b) return a.acquired_us < b.acquired_us end)
  list[EXPLAIN.oldest + 1] = nil
end

-- The resources that rows and a task ask for: limit, use, who set the limit, and the oldest leases of each.
function EXPLAIN.resources(signatures_asked)
  local by_name, looked_at = {}, 0
  for signature in pairs(signatures_asked) do
    for resource in pairs(LEDGER.amounts_of(signature).amounts) do
      by_name[resource] = by_name[resource] or { limit = LEDGER.limit_of(resource), leased = ledger[resource] or 0,
        claimed_by = EXPLAIN.claim_of(resource), oldest = {},
        cooling_until_us = COOLING.is_cooling(resource) and int(COOLING.all()[resource].until_us) or '' }
    end
  end
  EXPLAIN.scan(K.leases, '*', function(id, text)
    local lease = LEASES.parse(text)
    for resource, amount in pairs(LEDGER.amounts_of(lease.signature).amounts) do
      if by_name[resource] then
        local facts = EXPLAIN.lease_facts(id, lease)
        facts.amount = amount
        EXPLAIN.keep_oldest(by_name[resource].oldest, facts)
      end
    end
    looked_at = looked_at + 1
    return looked_at == EXPLAIN.leases_read
  end)
  return by_name
end

-- The groups of a run's tasks, with how many of the first of them are where.
function EXPLAIN.groups_of_run(name)
  local by_group, seen = {}, 0
  EXPLAIN.scan(K.tasks, name .. ':*', function(id, text)
    local task = TASKS.parse(text)
    if task.run == name then
      local counts, place = by_group[task.group] or {}, EXPLAIN.place_of(id, task)
      counts[place], by_group[task.group], seen = (counts[place] or 0) + 1, counts, seen + 1
    end
    return seen == EXPLAIN.tasks_of_run
  end)
  return by_group
end

-- The last parts of some names, as many as a command takes at once, with the tasks' records.
function EXPLAIN.tasks_of(names, from, part)
  local ids = {}
  for i = from, math.min(#names, from + EXPLAIN.at_once - 1) do
    ids[#ids + 1] = split(names[i], '\0')[part]
  end
  return ids, redis.call('HMGET', K.tasks, unpack(ids))
end

-- How many tasks of a group are among the first 1,000 of each place beside the line, and the first of them.
function EXPLAIN.places_of(group)
  local places = {}
  for kind, part in pairs({ delayed = 1, parked = 3, unserved = 3, suspect_tasks = 2 }) do
    local names = redis.call('ZRANGE', K[kind], 0, EXPLAIN.per_round - 1)
    for from = 1, #names, EXPLAIN.at_once do
      local ids, texts = EXPLAIN.tasks_of(names, from, part)
      for i = 1, #ids do
        if texts[i] and TASKS.parse(texts[i]).group == group then
          places[kind] = places[kind] or { count = 0, task_id = ids[i], is_least = #names == EXPLAIN.per_round }
          places[kind].count = places[kind].count + 1
        end
      end
    end
  end
  return places
end

function EXPLAIN.run(name)
  local plan = RUNS.plan_of(name)
  if not plan then
    return nil
  end
  local facts = { run_id = name, records = plan.records, row_groups = plan.row_groups, groups = EXPLAIN.groups_of_run(name) }
  for _, count in ipairs({ 'done', 'dropped', 'open', 'unwritten', 'written' }) do
    facts[count] = RUNS.counted(name, count)
  end
  for _, text in ipairs({ 'driver', 'owner', 'refused', 'stopped', 'held_back', 'target' }) do
    facts[text] = redis.call('HGET', K.progress, name .. '\0' .. text) or ''
  end
  local may_ask, listened = pcall(CHANNELS.is_listened_to, facts.driver) -- a reader may lack the right to ask
  facts.is_attended = facts.driver ~= '' and (not may_ask or listened)
  return facts
end

-- `names`: the requested name, as typed and as encoded in keys.
function EXPLAIN.pool(rows, names)
  local pool = VIEW.pool(rows)
  if pool.generation == '' then
    return pool
  end
  local wanted, asked = {}, {}
  for i = 1, #names do
    pool.task = pool.task or EXPLAIN.task(names[i])
    pool.run = pool.run or EXPLAIN.run(names[i])
    wanted[#wanted + 1] = names[i]
  end
  pool.places = {}
  for i = 1, #names do
    if redis.call('HEXISTS', K.groups, names[i]) == 1 then
      pool.places[names[i]] = EXPLAIN.places_of(names[i])
    end
  end
  wanted[#wanted + 1] = pool.task and pool.task.group
  for group_name in pairs(pool.run and pool.run.groups or {}) do
    wanted[#wanted + 1] = group_name
  end
  EXPLAIN.groups(pool.groups, wanted)
  for i = 1, #pool.groups do
    asked[pool.groups[i].signature or ''] = true
  end
  asked[pool.task and pool.task.signature or ''] = true
  asked[''] = nil
  pool.resources, pool.members, pool.config = EXPLAIN.resources(asked), EXPLAIN.members(rows), read_hash(K.config)
  pool.recovering_us, pool.groups_in_line = int(meta.recovering_us), groups_in_lines
  pool.first_task, pool.first_since_us = meta.first_task, int(meta.first_since_us)
  pool.unserved, pool.suspects = meta.unserved, meta.suspect_tasks
  return pool
end
