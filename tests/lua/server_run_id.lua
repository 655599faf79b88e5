-- The tests' server, in the place of lib/server_run_id: a key holds its run id.
local function server_run_id()
  return redis.call('GET', 'fb:test:run_id') or 'run'
end
