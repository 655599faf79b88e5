-- The memory of a request shard that members keep and state after a loss: settings, windows, budgets.
-- @include lib/shard/operations
-- @include lib/requests/draws
-- @include lib/requests/window
local MEMORY = {}

-- The memory of a shard for its members: its records as texts, and the number of its last event, by which the latest
-- memory is known; null while the shard recovers, as the latest may not be stated yet.
function MEMORY.text()
  if meta.recovering_us > 0 then
    return 'null'
  end
  local memory = { sequence = int(meta.sequence), settings = RECORDS.pack_named(STATE.settings().values),
    windows = {}, budgets = {} }
  for i = 1, #DOMAINS do
    local d = STATE.domain(DOMAINS[i])
    memory.windows[d.name] = d.born and RECORDS.pack(d, WINDOW_RECORD) or nil
  end
  for number, bucket in pairs(BUDGETS.all()) do
    memory.budgets[BUDGETS.names[number]] = BUDGETS.pack(bucket)
  end
  return cjson.encode(memory)
end

-- The settings are those of the latest memory, where the shard lost what came after its own.
function MEMORY.recall_settings(memory)
  local known = redis.call('HMGET', K.meta, 'restored', 'recalled', 'cap_set_in')
  local sequence = tonumber(memory.sequence)
  if sequence <= math.max(tonumber(known[1]) or 0, tonumber(known[2]) or 0) then
    return
  end
  redis.call('HSET', K.meta, 'recalled', memory.sequence)
  local cap_now = STATE.settings().values.override_cap
  local values = RECORDS.parse_named(memory.settings).values
  for name in pairs(STATE.settings().values) do
    STATE.change_setting(name, values[name] or '')
  end
  for name, value in pairs(values) do
    STATE.change_setting(name, value)
  end
  if known[3] == meta.generation then
    STATE.change_setting('override_cap', cap_now or '') -- an operator set it since the loss
  end
  meta.sequence = math.max(meta.sequence, sequence)
end

-- A window is the lower of what the shard and its members remember.
function MEMORY.recall_window(name, text)
  local d, theirs = STATE.domain(name), RECORDS.parse(text, WINDOW_RECORD)
  if theirs.current_limit < 1 or theirs.effective_max < 1 then
    return
  elseif not d.born or d.success + d.cuts == 0 and theirs.success + theirs.cuts > 0 then
    local in_flight, waiters, queued_since = d.in_flight, d.waiters, d.queued_since
    for i = 1, #WINDOW_RECORD do
      d[WINDOW_RECORD[i]] = theirs[WINDOW_RECORD[i]]
    end
    d.in_flight, d.waiters, d.queued_since, d.born = in_flight, waiters, queued_since, true
    return
  end
  LIMITS.set(d, math.min(d.current_limit, theirs.current_limit), 'recalled')
  d.blocked_until_us = math.max(d.blocked_until_us, theirs.blocked_until_us)
  d.quiet_until_us = math.max(d.quiet_until_us, theirs.quiet_until_us)
  d.cuts = math.max(d.cuts, theirs.cuts)
  if theirs.rate_limit_ceiling > 0 and (d.rate_limit_ceiling == 0 or theirs.rate_limit_ceiling < d.rate_limit_ceiling) then
    d.rate_limit_ceiling = theirs.rate_limit_ceiling
  end
end

-- A budget holds the less of what the shard and its members remember.
function MEMORY.recall_budget(number, text)
  local theirs, bucket = BUDGETS.parse(text, number), BUDGETS.all()[number]
  if not bucket then
    bucket = DRAWS.add_bucket(number)
    for i = 1, #BUDGETS.fields do
      bucket[BUDGETS.fields[i]] = theirs[BUDGETS.fields[i]]
    end
    return
  end
  DRAWS.settle_bucket(bucket)
  bucket.level = math.min(bucket.level, BUDGETS.level_now(theirs))
end

-- A memory counts where the shard is being rebuilt, and where it was born again since, so that its events are fewer.
function OPERATIONS.recall(text)
  local memory = cjson.decode(text)
  if meta.recovering_us == 0 and tonumber(memory.sequence) <= meta.sequence then
    return '["recalled"]'
  end
  MEMORY.recall_settings(memory)
  for i = 1, #DOMAINS do
    if memory.windows[DOMAINS[i]] then
      MEMORY.recall_window(DOMAINS[i], memory.windows[DOMAINS[i]])
    end
  end
  for i = 1, #BUDGETS.names do
    if memory.budgets[BUDGETS.names[i]] then
      MEMORY.recall_budget(i, memory.budgets[BUDGETS.names[i]])
    end
  end
  return '["recalled"]'
end
