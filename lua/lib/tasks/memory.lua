-- The memory of a pool that members keep and state after a loss: its settings, its claims of limits.
-- @include lib/shard/operations
-- @include lib/tasks/settings
-- @include lib/tasks/limits
-- @include lib/runs/drivers
local MEMORY = { most_claims = 1000, parts = { 'settings', 'state', 'config', 'claims' },
  settings = { 'reserve_after_us', 'max_losses', 'policy', 'events' } }

-- The claims of a pool as [holder, resource, limit]; those of runs are made again of their plans.
function MEMORY.claims()
  local entries, claims = redis.call('ZRANGE', K.claims, '[@', '(A', 'BYLEX', 'LIMIT', 0, MEMORY.most_claims), {}
  for i = 1, #entries do
    local part = split(string.sub(entries[i], 2), '\0')
    if string.sub(part[1], 1, 4) ~= 'run:' then
      claims[#claims + 1] = part
    end
  end
  return claims
end

-- The memory of a pool for its members, with the number of the last event, which orders memories; null while the pool
-- recovers, as the latest may not be stated yet.
function MEMORY.text()
  if meta.recovering_us > 0 then
    return 'null'
  end
  local settings = {}
  for i = 1, #MEMORY.settings do
    settings[MEMORY.settings[i]] = tostring(meta[MEMORY.settings[i]])
  end
  return cjson.encode({ sequence = int(meta.sequence), settings = settings, state = meta.state,
    config = read_hash(K.config), claims = MEMORY.claims() })
end

-- Note the parts that the pool has lost, for which any memory is taken.
function MEMORY.note_lost(are_settings_lost, are_claims_lost)
  local is_lost = { settings = are_settings_lost, state = are_settings_lost, claims = are_claims_lost,
    config = redis.call('EXISTS', K.config) == 0 }
  for i = 1, #MEMORY.parts do
    local name = MEMORY.parts[i]
    if is_lost[name] then
      redis.call('HSET', K.meta, 'lost_' .. name, meta.generation)
    end
  end
end

-- Whether a memory is later than what the pool has of a part, and than every memory before; notes that it was taken.
-- Notes count in one generation: the next rebuild begins anew.
function MEMORY.is_latest(name, sequence)
  local known = redis.call('HMGET', K.meta, 'lost_' .. name, 'restored', 'recalled_' .. name, 'decided_' .. name)
  if known[4] == meta.generation then
    return false
  end
  local recalled_in, recalled = string.match(known[3] or '', '^(.*) (%d+)$')
  local has = known[1] == meta.generation and -1 or tonumber(known[2]) or 0
  if sequence > math.max(has, recalled_in == meta.generation and tonumber(recalled) or -1) then
    redis.call('HSET', K.meta, 'recalled_' .. name, meta.generation .. ' ' .. int(sequence))
    return true
  end
  return false
end

-- Note that a part was set after the loss, so that no earlier memory replaces it.
function MEMORY.note_decided(name)
  redis.call('HSET', K.meta, 'decided_' .. name, meta.generation)
end

function MEMORY.recall_state(state)
  meta.state = state
end

function MEMORY.recall_settings(settings)
  for i = 1, #MEMORY.settings do
    local name = MEMORY.settings[i]
    meta[name] = i <= 2 and tonumber(settings[name]) or settings[name]
  end
end

function MEMORY.recall_config(config)
  redis.call('DEL', K.config)
  EXPIRY.with_shard('config')
  for name, value in pairs(config) do
    redis.call('HSET', K.config, name, value)
  end
  borrowing = nil
end

function MEMORY.recall_claims(claims)
  local before, theirs = MEMORY.claims(), {}
  local function recall(resource, holder, limit)
    if redis.call('HGET', K.meta, CLAIMS.noted(resource, holder)) ~= meta.generation then
      CLAIMS.set(resource, holder, limit)
    end
  end
  for i = 1, #claims do
    theirs[claims[i][1] .. '\0' .. claims[i][2]] = true
    recall(claims[i][2], claims[i][1], claims[i][3])
  end
  for i = 1, #before do
    if not theirs[before[i][1] .. '\0' .. before[i][2]] then
      recall(before[i][2], before[i][1], '')
    end
  end
end

function OPERATIONS.recall(text)
  local memory, before = cjson.decode(text), meta.policy
  for i = 1, #MEMORY.parts do
    local name = MEMORY.parts[i]
    if MEMORY.is_latest(name, tonumber(memory.sequence)) then
      MEMORY['recall_' .. name](memory[name])
    end
  end
  meta.sequence = math.max(meta.sequence, tonumber(memory.sequence))
  if meta.policy ~= before then
    BORROW.count_out()
  end
  return '["recalled"]'
end
FOR_MEMBERS.recall = true
