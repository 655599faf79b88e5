-- Budgets that a provider allows over time: token buckets (design 03, *Quotas*; docs/adr/0007). A bucket is
-- settled only where it changes, so the instant at which it is ready for a draw never moves.
-- @include lib/requests/state
local BUDGETS = {
  names = { 'requests_per_minute', 'tokens_per_minute', 'requests_per_day', 'tokens_per_day' },
  periods_us = { 60000000, 60000000, 86400000000, 86400000000 },
  fields = { 'registered', 'burst', 'learned', 'level', 'at_us', 'remaining', 'remaining_at_us', 'heard_us' },
  number_of = {},
}
for i = 1, #BUDGETS.names do
  BUDGETS.number_of[BUDGETS.names[i]] = i
end

-- Number of a budget -> the bucket, for those in force; read when first asked for.
local buckets

function BUDGETS.parse(text, number)
  local part, bucket = split(text, '|'), { number = number }
  for i = 1, #BUDGETS.fields do
    bucket[BUDGETS.fields[i]] = tonumber(part[i])
  end
  return bucket
end

function BUDGETS.pack(bucket)
  local part = {}
  for i = 1, #BUDGETS.fields do
    part[i] = real(bucket[BUDGETS.fields[i]])
  end
  return table.concat(part, '|')
end

function BUDGETS.all()
  if buckets then
    return buckets
  end
  buckets = {}
  local stored = meta.budgets > 0 and redis.call('HMGET', K.budgets, unpack(BUDGETS.names)) or {}
  for i = 1, #BUDGETS.names do
    buckets[i] = stored[i] and BUDGETS.parse(stored[i], i) or nil
  end
  return buckets
end

-- The provider's own lower limit wins over the registered one.
function BUDGETS.limit_of(bucket)
  return bucket.learned > 0 and bucket.learned or bucket.registered
end

function BUDGETS.burst_of(bucket)
  local limit = BUDGETS.limit_of(bucket)
  return bucket.burst > 0 and math.min(bucket.burst, limit) or limit
end

function BUDGETS.level_now(bucket)
  local refill = (now_us - bucket.at_us) * BUDGETS.limit_of(bucket) / BUDGETS.periods_us[bucket.number]
  return math.min(BUDGETS.burst_of(bucket), bucket.level + refill)
end

function BUDGETS.is_of_tokens(bucket)
  return bucket.number % 2 == 0
end

-- The draw of an attempt on a budget: one request, or its tokens.
function BUDGETS.draw_of(bucket, cost)
  return BUDGETS.is_of_tokens(bucket) and cost or 1
end

-- When a budget has room for a draw. A draw above the burst goes when the bucket is full.
function BUDGETS.ready_us(bucket, draw)
  local need = math.min(draw, BUDGETS.burst_of(bucket))
  if draw == 0 or need <= bucket.level then
    return bucket.at_us
  end
  local missing = need - bucket.level
  return bucket.at_us + math.ceil(missing * BUDGETS.periods_us[bucket.number] / BUDGETS.limit_of(bucket))
end

-- When an attempt stops lacking a budget, and the one that it lacks longest; nil if it lacks none.
function BUDGETS.lacks_until_us(cost)
  local latest, longest
  for i = 1, #BUDGETS.names do
    local bucket = BUDGETS.all()[i]
    local ready = bucket and BUDGETS.ready_us(bucket, BUDGETS.draw_of(bucket, cost)) or now_us
    if ready > (latest or now_us) then
      latest, longest = ready, BUDGETS.names[i]
    end
  end
  return latest, longest
end

-- The budget of tokens that could never hold a cost, nil if there is none. Only what was registered
-- counts: a limit that headers lowered may rise again.
function BUDGETS.never_fits(cost)
  for _, bucket in pairs(BUDGETS.all()) do
    local most = bucket.registered
    if bucket.burst > 0 then
      most = math.min(most, bucket.burst)
    end
    if BUDGETS.is_of_tokens(bucket) and most > 0 and cost > most then
      return BUDGETS.names[bucket.number]
    end
  end
  return nil
end
