-- What a provider allows over time: token buckets (spec 03, Quotas; docs/adr/0007). A bucket is
-- settled only where it changes, so the instant at which it is ready for a draw never moves.
local BUDGETS = { 'requests_per_minute', 'tokens_per_minute', 'requests_per_day', 'tokens_per_day' }
local PERIODS_US = { 60000000, 60000000, 86400000000, 86400000000 }
local BUDGET_FIELDS = { 'registered', 'burst', 'learned', 'level', 'at_us', 'remaining',
  'remaining_at_us', 'heard_us' }

-- Number of a budget -> the bucket, for those in force; read when first asked for.
local buckets

local function all_buckets()
  if buckets then
    return buckets
  end
  buckets = {}
  local stored = meta.budgets > 0 and redis.call('HMGET', K.budgets, unpack(BUDGETS)) or {}
  for i = 1, #BUDGETS do
    if stored[i] then
      local part, bucket = split(stored[i], '|'), { number = i }
      for j = 1, #BUDGET_FIELDS do
        bucket[BUDGET_FIELDS[j]] = tonumber(part[j])
      end
      buckets[i] = bucket
    end
  end
  return buckets
end

-- The provider's own lower limit wins over the registered one.
local function limit_of(bucket)
  return bucket.learned > 0 and bucket.learned or bucket.registered
end

local function burst_of(bucket)
  local limit = limit_of(bucket)
  return bucket.burst > 0 and math.min(bucket.burst, limit) or limit
end

local function level_now(bucket)
  local refill = (now_us - bucket.at_us) * limit_of(bucket) / PERIODS_US[bucket.number]
  return math.min(burst_of(bucket), bucket.level + refill)
end

local function is_of_tokens(bucket)
  return bucket.number % 2 == 0
end

-- What an attempt takes from a budget: one request, or its tokens.
local function draw_of(bucket, cost)
  return is_of_tokens(bucket) and cost or 1
end

-- When a budget has room for a draw. What is larger than the burst goes when the bucket is full.
local function ready_us(bucket, draw)
  local need = math.min(draw, burst_of(bucket))
  if draw == 0 or need <= bucket.level then
    return bucket.at_us
  end
  local missing = need - bucket.level
  return bucket.at_us + math.ceil(missing * PERIODS_US[bucket.number] / limit_of(bucket))
end

-- When an attempt stops lacking a budget, and the one that it lacks longest; nil if it lacks none.
local function lacks_until_us(cost)
  local latest, longest
  for i = 1, #BUDGETS do
    local bucket = all_buckets()[i]
    local ready = bucket and ready_us(bucket, draw_of(bucket, cost)) or now_us
    if ready > (latest or now_us) then
      latest, longest = ready, BUDGETS[i]
    end
  end
  return latest, longest
end

-- The budget of tokens that could never hold a cost, nil if there is none. Only what was registered
-- counts: a limit that headers lowered may rise again.
local function never_fits(cost)
  for _, bucket in pairs(all_buckets()) do
    local most = bucket.registered
    if bucket.burst > 0 then
      most = math.min(most, bucket.burst)
    end
    if is_of_tokens(bucket) and most > 0 and cost > most then
      return BUDGETS[bucket.number]
    end
  end
  return nil
end
