-- Damage: a record that is missing or cannot be read, whichever key went (design 06, *Damage*). The call that meets one
-- deletes the shard's generation; an operator's call answers with the key.
-- @include lib/shard/shard
local DAMAGE = { most_in_a_row = 8, looked_at = 8, all = 2 ^ 31 }
-- Each kind of shard defines `DAMAGE.types`, its keys with their types; `DAMAGE.can_read`, by the name of a hash whether
-- the text of an entry can be read; and `DAMAGE.miscounted`, in scripts that change it.

-- Whether an error message reports a damaged record; other errors are the server's, or faults of this code.
function DAMAGE.is_damage(message)
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

-- The name of the first key whose count contradicts the others, nil for none.
function DAMAGE.miscounted() end

-- The name of a hash with an entry that cannot be read, of so many entries picked at random; nil for none.
function DAMAGE.unreadable(most)
  for name, can_read in pairs(DAMAGE.can_read) do
    local found = redis.call('HRANDFIELD', K[name], most, 'WITHVALUES') or {} -- fakeredis has nil for none
    for i = 2, #found, 2 do
      if not can_read(found[i]) then
        return name
      end
    end
  end
  return nil
end

-- The names of the damaged keys in the error of a call; none if it names none.
function DAMAGE.names(raised)
  local names = DAMAGE.mistyped()
  if #names > 0 then
    return names
  end
  local named = string.match(raised, '^DAMAGED (%S+)$')
  local is_readable, counted = pcall(DAMAGE.miscounted)
  return { named or DAMAGE.unreadable(DAMAGE.all) or is_readable and counted or nil }
end

-- The error of a call as text.
function DAMAGE.text(raised)
  return type(raised) == 'table' and raised.err or tostring(raised)
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
