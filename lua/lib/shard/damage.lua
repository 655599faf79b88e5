-- Damage: a record that is missing or cannot be read, whichever key went (spec 06, Members). The call that meets one
-- takes the generation off the shard; a look tells it.
-- @include lib/shard/shard
local DAMAGE = { most_in_a_row = 8 }
DAMAGE.types = nil -- a function of the kind: its keys, each with its type; nil for a kind whose damage is not found

-- Whether an error is one that a damaged record raises; any other is the server's or a fault of this code.
function DAMAGE.is_told_by(message)
  local signs = { '^DAMAGED ', '^WRONGTYPE ', 'attempt to ', 'bad argument ', 'is not an integer',
    'is not a valid float', 'must be strings or integers' }
  for i = 1, #signs do
    if string.find(message, signs[i]) then
      return true
    end
  end
  return false
end

-- Raise that a key is damaged.
function DAMAGE.raise(name)
  error('DAMAGED ' .. name, 0)
end

-- The keys by name that are of another type than theirs.
function DAMAGE.mistyped()
  if redis.call('TYPE', K.meta).ok ~= 'hash' then
    return { 'meta' }
  end
  local names, types = {}, DAMAGE.types()
  for i = 1, #types do
    local found = redis.call('TYPE', K[types[i][1]]).ok
    if found ~= types[i][2] and found ~= 'none' then
      names[#names + 1] = types[i][1]
    end
  end
  return names
end

-- The damaged keys by name, as far as their types and counts tell; of the kind is `DAMAGE.miscounted`, which names the
-- first key whose count is not what the others say, nil for none.
function DAMAGE.found()
  local names = DAMAGE.mistyped()
  if #names == 0 then
    local is_readable, name = pcall(DAMAGE.miscounted)
    names[1] = is_readable and name or nil
  end
  return names
end

-- Answer with what a call raised, as if nothing had caught it.
function DAMAGE.pass_on(raised)
  if type(raised) == 'table' then
    return redis.error_reply(raised.err)
  end
  error(raised, 0)
end

-- Take the generation off the shard, and keep why, so that every member joins again and the first lets it begin anew.
function DAMAGE.mark(what)
  if redis.call('TYPE', K.meta).ok ~= 'hash' then
    redis.call('UNLINK', K.meta)
    return
  end
  redis.call('HDEL', K.meta, 'generation')
  redis.call('HSET', K.meta, 'reason', string.sub('damaged: ' .. what, 1, 120))
end
