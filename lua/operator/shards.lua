-- The shards in use, as the keys to look at next.
--
-- KEYS
--   shards set tags of all shards
-- ARGV
-- Reply
--   array of lines: the meta key of each shard, sorted
-- Errors
--   none
-- Cost
--   O(n log n) in the shards
-- Invariant
--   changes nothing
-- @bind
local MAX_ROWS = 1000

local tags, lines = redis.call('SMEMBERS', K.shards), {}
table.sort(tags)
for i = 1, math.min(#tags, MAX_ROWS) do
  lines[i] = 'fb:{' .. tags[i] .. '}:meta'
end
if #tags == 0 then
  lines[1] = 'no shard: nobody has used Forebay on this server'
elseif #tags > MAX_ROWS then
  lines[MAX_ROWS + 1] = '... and ' .. (#tags - MAX_ROWS) .. ' more'
end
return lines
