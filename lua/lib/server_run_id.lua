-- The server's run id: another one after each start of the server, and another one on its replica, so that a member
-- which knows it was not cut off from the others. It is read in the script, so that it is never that of a server
-- which was the primary a moment ago.
local function server_run_id()
  return string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
end
