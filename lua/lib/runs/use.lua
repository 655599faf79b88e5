-- A run's driver, its begin, and the use of its cells, kept for people (design 05).
-- @include lib/shard/operations
-- @include lib/runs/state
local USE = {}

-- The fields of a run's progress that this fragment keeps; the end of the run deletes them.
function USE.fields(plan)
  local names = { 'begun', 'owner' }
  for index = 1, #plan.columns do
    names[#names + 1] = 'used\0' .. int(index)
    names[#names + 1] = 'made\0' .. int(index)
  end
  return names
end

-- Count finished cells of a column.
function USE.count_made(run, index, cells)
  RUNS.count(run, 'made\0' .. int(index), cells)
end

-- Set `owner`, the name of a run's driver process; the first call sets the run's begin.
function OPERATIONS.run_drive(run, owner)
  if not RUNS.plan_of(run) then
    return '["unknown"]'
  end
  EXPIRY.with_shard('progress')
  redis.call('HSETNX', K.progress, run .. '\0begun', int(now_us))
  redis.call('HSET', K.progress, run .. '\0owner', owner)
  return '["noted"]'
end

-- Add the use of a column's tasks: `text` is JSON, name -> numbers.
function OPERATIONS.run_used(run, column, text)
  local plan = RUNS.plan_of(run)
  if not plan or not plan.columns[tonumber(column)] then
    return '["unknown"]'
  end
  local name = run .. '\0used\0' .. int(tonumber(column))
  local before = redis.call('HGET', K.progress, name)
  local sums = before and cjson.decode(before) or {}
  for key, numbers in pairs(cjson.decode(text)) do
    local sum = sums[key] or {}
    for i = 1, #numbers do
      sum[i] = (sum[i] or 0) + numbers[i]
    end
    sums[key] = sum
  end
  EXPIRY.with_shard('progress')
  redis.call('HSET', K.progress, name, cjson.encode(sums))
  return '["noted"]'
end
