-- No key outlives its shard: joins and heartbeats renew the life of every key, and a key that this
-- call made, or emptied and made again, is given what is left to `meta`.
local made = {}

-- Note, where a count goes from 0 to 1, that the key under `name` may be new.
local function may_be_new(name)
  made[name] = true
end

local function keep_new_keys()
  if next(made) == nil then
    return
  end
  local left_ms = redis.call('PTTL', K.meta)
  for name in pairs(made) do
    if left_ms > 0 then
      redis.call('PEXPIRE', K[name], left_ms, 'NX')
    end
  end
end
