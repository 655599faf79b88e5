-- No key outlives its shard by more than the time since its last heartbeat: joins and heartbeats renew the life of
-- every key, and a key that this call made, or emptied and made again, is given a whole one.
local EXPIRY = { kept_ms = 7 * 24 * 3600 * 1000 }
local made = {} -- names of keys that this call may have made

-- Note, where a count goes from 0 to 1, that the key under `name` may be new.
function EXPIRY.with_shard(name)
  made[name] = true
end

function EXPIRY.write()
  for name in pairs(made) do
    redis.call('PEXPIRE', K[name], EXPIRY.kept_ms, 'NX')
  end
end

-- Let every key of the shard live this long from now.
function EXPIRY.renew_all(life_ms)
  for i = 1, #KEYS do
    redis.call('PEXPIRE', KEYS[i], life_ms)
  end
end
