-- Damage: a record that is missing or cannot be read, whichever key went (spec 06, Members). The call that meets one
-- deletes the shard's generation; an operator's call answers with the key.
-- @include lib/shard/shard
local DAMAGE = { most_in_a_row = 8 }
DAMAGE.types = nil -- defined by a kind of shard: returns its keys with their types; nil where damage is not looked for

-- Whether an error message tells of a damaged record; any other error is the server's, or a fault of this code.
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

-- The names of the keys that have a wrong type.
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

-- The names of the damaged keys, as far as types and counts tell. Each kind of shard defines `DAMAGE.miscounted`, which
-- names the first key whose count contradicts the others, nil for none.
function DAMAGE.found()
  local names = DAMAGE.mistyped()
  if #names == 0 then
    local is_readable, name = pcall(DAMAGE.miscounted)
    names[1] = is_readable and name or nil
  end
  return names
end

-- Answer with a caught error as the server would have answered with it.
function DAMAGE.pass_on(raised)
  if type(raised) == 'table' then
    return redis.error_reply(raised.err)
  end
  error(raised, 0)
end

-- Delete the shard's generation and note the reason: every member then joins again, and the first join rebuilds it.
function DAMAGE.mark(what)
  if redis.call('TYPE', K.meta).ok ~= 'hash' then
    redis.call('UNLINK', K.meta)
    return
  end
  redis.call('HDEL', K.meta, 'generation')
  redis.call('HSET', K.meta, 'reason', string.sub('damaged: ' .. what, 1, 120))
end
