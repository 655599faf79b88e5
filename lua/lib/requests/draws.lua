-- How budgets change: draws, settlement, registration, what headers say (docs/adr/0007).
local function settle_bucket(bucket)
  bucket.level, bucket.at_us, bucket.dirty = level_now(bucket), now_us, true
end

local function add_bucket(number)
  local bucket = { number = number, registered = 0, burst = 0, learned = 0, level = 0, at_us = now_us,
    remaining = 0, remaining_at_us = 0, heard_us = 0, dirty = true }
  all_buckets()[number] = bucket
  meta.budgets = meta.budgets + 1
  may_be_new('budgets')
  return bucket
end

-- Draw on all budgets, at a grant.
local function draw_on_budgets(cost)
  for _, bucket in pairs(all_buckets()) do
    local draw = draw_of(bucket, cost)
    if draw > 0 then
      settle_bucket(bucket)
      bucket.level = bucket.level - draw
    end
  end
end

-- What goes back lifts a level to no more than the burst, nor above what the provider said was left,
-- plus what was refilled since.
local function give_back(bucket, amount)
  local most = burst_of(bucket)
  if bucket.remaining_at_us > 0 then
    local refill = (now_us - bucket.remaining_at_us) * limit_of(bucket) / PERIODS_US[bucket.number]
    most = math.min(most, bucket.remaining + refill)
  end
  bucket.level = math.max(bucket.level, math.min(bucket.level + amount, most))
end

-- At a release: the difference between estimate and usage; all of it if no byte went out.
local function settle_draw(cost, used, is_unsent)
  for _, bucket in pairs(all_buckets()) do
    local amount = is_unsent and 1 or 0
    if is_of_tokens(bucket) then
      amount = cost - used
    end
    if amount ~= 0 then
      settle_bucket(bucket)
      if amount > 0 then
        give_back(bucket, amount)
      else
        bucket.level = bucket.level + amount
      end
    end
  end
end

local function register_budget(number, limit, burst)
  local bucket = all_buckets()[number]
  if not bucket then
    if limit > 0 then
      bucket = add_bucket(number)
      bucket.registered, bucket.burst = limit, burst
      bucket.level = burst_of(bucket)
    end
    return
  end
  if bucket.registered == limit and bucket.burst == burst then
    return
  end
  if limit == 0 and bucket.learned == 0 then
    redis.call('HDEL', K.budgets, BUDGETS[number])
    buckets[number] = nil
    meta.budgets = meta.budgets - 1
    return
  end
  settle_bucket(bucket)
  bucket.registered, bucket.burst = limit, burst
  if limit > 0 and bucket.learned >= limit then
    bucket.learned = 0
  end
  bucket.level = math.min(bucket.level, burst_of(bucket))
end

-- An answer's headers. None makes a bucket but one that states a limit; none raises what was
-- registered.
local function learn_budget(number, limit, remaining, at_us)
  local bucket = all_buckets()[number]
  if not bucket and not limit then
    return
  end
  at_us = math.min(at_us, now_us)
  if bucket and at_us < bucket.heard_us then
    return
  end
  local limit_before, level_before = 0, nil
  if bucket then
    settle_bucket(bucket)
    limit_before, level_before = limit_of(bucket), bucket.level
  else
    bucket = add_bucket(number)
    bucket.level = limit
  end
  bucket.heard_us = at_us
  if limit then
    bucket.learned = (bucket.registered == 0 or limit < bucket.registered) and limit or 0
    bucket.level = math.min(bucket.level, burst_of(bucket))
  end
  if remaining then
    bucket.level = math.min(bucket.level, remaining)
    bucket.remaining, bucket.remaining_at_us = remaining, at_us
  end
  if limit_of(bucket) ~= limit_before or bucket.level ~= level_before then
    emit('quota_adjusted', 'budget', BUDGETS[number], 'limit', int(limit_of(bucket)), 'level',
      real(bucket.level), 'from', real(level_before or 0))
  end
end

local function write_budgets()
  for number, bucket in pairs(buckets or {}) do
    if bucket.dirty then
      local part = {}
      for i = 1, #BUDGET_FIELDS do
        part[i] = real(bucket[BUDGET_FIELDS[i]])
      end
      redis.call('HSET', K.budgets, BUDGETS[number], table.concat(part, '|'))
    end
  end
end
