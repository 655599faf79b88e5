-- Let every key of the shard live this long from now.
local function keep_all(keep_ms)
  for i = 1, #KEYS do
    redis.call('PEXPIRE', KEYS[i], keep_ms)
  end
end
