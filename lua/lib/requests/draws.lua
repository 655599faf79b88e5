-- Changes of budgets: draws, settlement, registration, readings of headers (docs/adr/0007).
-- @include lib/shard/expiry
-- @include lib/shard/damage
-- @include lib/requests/budgets
local DRAWS = {}

function DRAWS.settle_bucket(bucket)
  bucket.level, bucket.at_us, bucket.dirty = BUDGETS.level_now(bucket), now_us, true
end

function DRAWS.add_bucket(number)
  local bucket = { number = number, registered = 0, burst = 0, learned = 0, level = 0, at_us = now_us,
    remaining = 0, remaining_at_us = 0, heard_us = 0, dirty = true }
  BUDGETS.all()[number] = bucket
  meta.budgets = meta.budgets + 1
  EXPIRY.with_shard('budgets')
  return bucket
end

-- Draw on all budgets, at a grant.
function DRAWS.take(cost)
  local found = 0
  for _, bucket in pairs(BUDGETS.all()) do
    found = found + 1
    local draw = BUDGETS.draw_of(bucket, cost)
    if draw > 0 then
      DRAWS.settle_bucket(bucket)
      bucket.level = bucket.level - draw
    end
  end
  if found ~= meta.budgets then
    DAMAGE.raise('budgets') -- before the lease is made
  end
end

-- Refund an amount, up to the burst, and to the amount that the provider stated as remaining,
-- plus what was refilled since.
function DRAWS.refund(bucket, amount)
  local most = BUDGETS.burst_of(bucket)
  if bucket.remaining_at_us > 0 then
    local refill = (now_us - bucket.remaining_at_us) * BUDGETS.limit_of(bucket) / BUDGETS.periods_us[bucket.number]
    most = math.min(most, bucket.remaining + refill)
  end
  bucket.level = math.max(bucket.level, math.min(bucket.level + amount, most))
end

-- At a release: refund or charge the difference of estimate and usage; refund all if no byte went out.
function DRAWS.settle(cost, used, is_unsent)
  for _, bucket in pairs(BUDGETS.all()) do
    local amount = is_unsent and 1 or 0
    if BUDGETS.is_of_tokens(bucket) then
      amount = cost - used
    end
    if amount ~= 0 then
      DRAWS.settle_bucket(bucket)
      if amount > 0 then
        DRAWS.refund(bucket, amount)
      else
        bucket.level = bucket.level + amount
      end
    end
  end
end

function DRAWS.register(number, limit, burst)
  local bucket = BUDGETS.all()[number]
  if not bucket then
    if limit > 0 then
      bucket = DRAWS.add_bucket(number)
      bucket.registered, bucket.burst = limit, burst
      bucket.level = BUDGETS.burst_of(bucket)
    end
    return
  end
  if bucket.registered == limit and bucket.burst == burst then
    return
  end
  if limit == 0 and bucket.learned == 0 then
    redis.call('HDEL', K.budgets, BUDGETS.names[number])
    buckets[number] = nil
    meta.budgets = meta.budgets - 1
    return
  end
  DRAWS.settle_bucket(bucket)
  bucket.registered, bucket.burst = limit, burst
  if limit > 0 and bucket.learned >= limit then
    bucket.learned = 0
  end
  bucket.level = math.min(bucket.level, BUDGETS.burst_of(bucket))
end

-- An answer's headers. None makes a bucket but one that states a limit; none raises what was
-- registered.
function DRAWS.learn(number, limit, remaining, at_us)
  local bucket = BUDGETS.all()[number]
  if not bucket and not limit then
    return
  end
  at_us = math.min(at_us, now_us)
  if bucket and at_us < bucket.heard_us then
    return
  end
  local limit_before, level_before = 0, nil
  if bucket then
    DRAWS.settle_bucket(bucket)
    limit_before, level_before = BUDGETS.limit_of(bucket), bucket.level
  else
    bucket = DRAWS.add_bucket(number)
    bucket.level = limit
  end
  bucket.heard_us = at_us
  if limit then
    bucket.learned = (bucket.registered == 0 or limit < bucket.registered) and limit or 0
    bucket.level = math.min(bucket.level, BUDGETS.burst_of(bucket))
  end
  if remaining then
    bucket.level = math.min(bucket.level, remaining)
    bucket.remaining, bucket.remaining_at_us = remaining, at_us
  end
  if BUDGETS.limit_of(bucket) ~= limit_before or bucket.level ~= level_before then
    emit('quota_adjusted', 'budget', BUDGETS.names[number], 'limit', int(BUDGETS.limit_of(bucket)), 'level',
      real(bucket.level), 'from', real(level_before or 0))
  end
end

function DRAWS.write()
  for number, bucket in pairs(buckets or {}) do
    if bucket.dirty then
      redis.call('HSET', K.budgets, BUDGETS.names[number], BUDGETS.pack(bucket))
    end
  end
end
