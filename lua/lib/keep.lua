-- No key outlives its shard: joins and heartbeats renew the life of every key, and one of `names`
-- that this call made, or emptied and made again, is given what is left to `meta`. Asking costs
-- less than setting: a question is neither replicated nor logged.
local function keep_new_keys(names)
  local left_ms = redis.call('PTTL', K.meta)
  for i = 1, left_ms > 0 and #names or 0 do
    local key = K[names[i]]
    if redis.call('PTTL', key) == -1 then
      redis.call('PEXPIRE', key, left_ms)
    end
  end
end
