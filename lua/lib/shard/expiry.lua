-- No key outlives its shard: joins and heartbeats renew the life of every key, and a key that this
-- call made, or emptied and made again, expires with `meta`.
local EXPIRY = {}
local made = {} -- names of keys that this call may have made

-- Note, where a count goes from 0 to 1, that the key under `name` may be new.
function EXPIRY.with_shard(name)
  made[name] = true
end

function EXPIRY.write()
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

-- Let every key of the shard live this long from now.
function EXPIRY.renew_all(life_ms)
  for i = 1, #KEYS do
    redis.call('PEXPIRE', KEYS[i], life_ms)
  end
end
