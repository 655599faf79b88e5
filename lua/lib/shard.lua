-- What both kinds of shard share: its clock, its events, what it tells other members, and the
-- numbered batches that make a call happen once (spec 06, Exactly once).
-- @include lib/events

local notices = {}

-- Note something for a member: it is told in the reply if it is the caller, else by its channel.
local function notify(member, notice)
  local list = notices[member]
  if not list then
    list = {}
    notices[member] = list
  end
  list[#list + 1] = notice
end

-- The last act of a script: a message is a hint, so a failure to publish changes nothing.
local function publish_notices(meta, caller)
  local channel = string.sub(K.meta, 1, -5) .. 'wake:'
  for member, list in pairs(notices) do
    if member ~= caller then
      redis.pcall('PUBLISH', channel .. member,
        '["' .. meta.generation .. '",[' .. table.concat(list, ',') .. ']]')
    end
  end
end

-- Return the kept reply of a repeated batch, or an error for an older one, or nil to go on.
local function replay(member, number)
  local kept = redis.call('HGET', K.batches, member)
  if not kept then
    return nil
  end
  local at = string.find(kept, ' ', 1, true)
  local last = tonumber(string.sub(kept, 1, at - 1))
  if number == last then
    return string.sub(kept, at + 1)
  end
  if number < last then
    return redis.error_reply('OLDBATCH batch ' .. int(number) .. ' after ' .. int(last))
  end
  return nil
end

local function keep_reply(member, number, reply)
  redis.call('HSET', K.batches, member, int(number) .. ' ' .. reply)
  return reply
end
