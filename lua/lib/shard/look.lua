-- What an operator's call meets: a shard that another version wrote is refused, one that is damaged told.
-- @include lib/shard/schema
-- @include lib/shard/damage
local LOOK = {}

-- Raise that nobody can say what the shard is: its `meta` has gone, or a call found it damaged and took its
-- generation off. What is left of one that nobody uses any more has no members.
function LOOK.check_head()
  local generation, reason = unpack(redis.call('HMGET', K.meta, 'generation', 'reason'))
  if not generation and (reason or redis.call('EXISTS', K.members) == 1) then
    DAMAGE.raise('meta')
  end
end

-- What an operator is answered whose call raised something: of damage the key, what it is, and the remedy.
function LOOK.tell(raised)
  local message = type(raised) == 'table' and raised.err or tostring(raised)
  if not DAMAGE.is_told_by(message) then
    return DAMAGE.pass_on(raised)
  end
  local name = DAMAGE.mistyped()[1] or string.match(message, '^DAMAGED (%S+)')
  return redis.error_reply('DAMAGED ' .. (K[name] or K.meta) .. ' is damaged, as by an eviction or a stray command: its '
    .. 'members rebuild the shard when they next call; where none runs, `forebay reset --rebuild` does')
end

-- What a look replies: what `capture` returns.
function LOOK.reply(capture)
  local refusal = SCHEMA.refusal()
  if refusal then
    return refusal
  end
  local is_readable, reply = pcall(function()
    LOOK.check_head()
    return capture()
  end)
  return is_readable and reply or LOOK.tell(reply)
end
