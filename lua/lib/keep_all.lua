-- Let every key of the shard live this long from now.
local function keep_all(life_ms)
  for i = 1, #KEYS do
    redis.call('PEXPIRE', KEYS[i], life_ms)
  end
end
