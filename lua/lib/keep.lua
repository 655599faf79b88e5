-- No key outlives its shard (spec 06): joins and heartbeats renew the life of every key; a key that
-- a batch makes is given what is left to `meta`. A key that only takes another's place in one call
-- is not seen here; the next heartbeat keeps it.
-- @include lib/keep_all

local function count_keys()
  return redis.call('EXISTS', unpack(KEYS))
end

local function keep_new_keys(before, member_ended)
  if not member_ended and count_keys() <= before then
    return
  end
  local left_ms = redis.call('PTTL', K.meta)
  if left_ms > 0 then
    keep_all(left_ms)
  end
end
