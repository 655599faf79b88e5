-- The process of a member: `meta` holds it under "member:" and the member's name, as host, pid, program, version
-- and since when it is a member in microseconds, with blanks between. The first four are the member's own words,
-- percent-encoded, as it joined.
-- @include lib/int
-- @include lib/split
-- @include lib/shard/events
local IDENTITY = { prefix = 'member:', unknown = '- - - - 0' } -- unknown where a rebuild alone made it a member

-- Store a member's process, unless it is stored already.
function IDENTITY.keep(member, words, at_us)
  redis.call('HSETNX', K.meta, IDENTITY.prefix .. member, words .. ' ' .. int(at_us))
end

-- Host, pid, program, version and since of a member, as texts.
function IDENTITY.of(member)
  local part = split(redis.call('HGET', K.meta, IDENTITY.prefix .. member) or IDENTITY.unknown, ' ')
  return #part == 5 and part or split(IDENTITY.unknown, ' ')
end

-- Write an event of a member with its process, in the parts of `IDENTITY.of`; further fields and values may follow.
function IDENTITY.emit(kind, member, part, ...)
  emit(kind, 'member_id', member, 'host', part[1], 'pid', part[2], 'program', part[3], 'version', part[4], ...)
end

function IDENTITY.forget(member)
  redis.call('HDEL', K.meta, IDENTITY.prefix .. member)
end
