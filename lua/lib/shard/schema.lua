-- The refusal of a shard that another schema version wrote (design 06, *Where it runs*).
local SCHEMA = { spoken = '4' }

-- The error to reply with, or nil.
function SCHEMA.refusal()
  local stored = redis.pcall('HGET', K.meta, 'schema') -- an error where the key is of another type
  return type(stored) == 'string' and stored ~= SCHEMA.spoken and redis.error_reply('SCHEMA ' .. stored) or nil
end
