-- Guards of an operator's calls: they refuse a shard of another schema version, and name the key of a damaged one.
-- @include lib/shard/schema
-- @include lib/shard/damage
local LOOK = {}

-- Raise where the shard's `meta` is gone, or a call found damage and deleted the generation: it noted the key. What an
-- unused shard leaves behind has no members, and raises nothing.
function LOOK.check_head()
  local generation, reason = unpack(redis.call('HMGET', K.meta, 'generation', 'reason'))
  if not generation and (reason or redis.call('EXISTS', K.members) == 1) then
    local noted = string.match(reason or '', '^damaged: ([%w_]+)')
    DAMAGE.raise(K[noted] and noted or 'meta')
  end
end

-- The answer to an operator's call that raised an error: for damage, the key and the remedy.
function LOOK.error_reply(raised)
  local message = DAMAGE.text(raised)
  if not DAMAGE.is_damage(message) then
    return DAMAGE.pass_on(raised)
  end
  local name, pool = DAMAGE.names(message)[1], string.match(K.meta, '{pool:(.-)}')
  return redis.error_reply('DAMAGED ' .. (K[name] or K.meta) .. ' is damaged, as by an eviction or a stray command: its '
    .. 'members rebuild the shard when they next call; where none runs, `forebay reset --rebuild'
    .. (pool and ' --pool ' .. pool or '') .. '` does')
end

-- The reply of an operator's call: the result of `capture`, or an error.
function LOOK.reply(capture)
  local refusal = SCHEMA.refusal()
  if refusal then
    return refusal
  end
  local is_readable, reply = pcall(function()
    LOOK.check_head()
    return capture()
  end)
  return is_readable and reply or LOOK.error_reply(reply)
end
