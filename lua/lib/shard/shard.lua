-- The base of both kinds of shard: record and clock, events, notices to other members, and the
-- numbered batches that make a call happen once (design 06, *Exactly once*).
-- @include lib/channels
-- @include lib/time
-- @include lib/shard/events
-- @include lib/shard/records
local SHARD = {}
local meta -- the shard's record in this call: its clock and counts, as its kind's `STATE.load` reads it
local read_fields -- what was read of `meta`: generation, record, the caller's kept reply, then what a kind names
local notices = {}

-- Read what a call needs of `meta` at once. A member's last number and reply stand under "@" and its name.
function SHARD.read(member, fields)
  read_fields = redis.call('HMGET', K.meta, 'generation', 'record', '@' .. member, unpack(fields))
end

-- Return the kept reply of a repeated batch, or an error for an older one, or nil to go on.
function SHARD.replay(number)
  local kept = read_fields[3]
  if not kept then
    return nil
  end
  local at = string.find(kept, ' ', 1, true)
  local last = tonumber(string.sub(kept, 1, at - 1))
  if number == last then
    return string.sub(kept, at + 1)
  elseif number < last then
    return redis.error_reply('OLDBATCH batch ' .. int(number) .. ' after ' .. int(last))
  end
  return nil
end

-- The shard's record of some fields, with this call's time in it; its `generation` is nil where there is no shard.
-- Read the further fields of a kind of shard, unless they were read.
function SHARD.record(fields, others)
  if not read_fields then
    SHARD.read('', others)
  end
  shard_records = KEPT.take()
  local record, generation = RECORDS.of('record', read_fields[2], fields), read_fields[1]
  local before_us = record.text and record.now_us or nil
  now_us, record.last_us = shard_time(before_us, before_us and record.last_us)
  now_text = int(now_us)
  record.now_us, record.silent_us = now_us, now_us - (before_us or now_us)
  record.generation, record.is_reindexed = generation and string.find(generation, '^%w+$') and generation or nil, nil
  if record.generation and not (before_us and before_us > 0) then
    error('DAMAGED record', 0) -- a join writes it; without it the shard has no cap, no limit and no member
  end
  return record
end

-- Whether a reply to the caller is kept.
function SHARD.has_reply()
  return read_fields[3]
end

-- The reply to a member's batch; last the number of the shard's last event, this call's among them.
function SHARD.reply(member, wake_us, results)
  return '[' .. now_text .. ',' .. int(wake_us) .. ',"' .. read_fields[1] .. '",['
    .. table.concat(results, ',') .. '],[' .. table.concat(notices[member] or {}, ',') .. '],'
    .. int(meta.sequence + #events) .. ']'
end

-- The members of whom `meta` keeps a reply or a process.
function SHARD.callers()
  local names, callers = redis.call('HKEYS', K.meta), {}
  for i = 1, #names do
    callers[#callers + 1] = string.match(names[i], '^@(.*)') or string.match(names[i], '^member:(.*)')
  end
  return callers
end

-- The change of `meta` by which the reply to a batch is kept.
function SHARD.keeping(member, number, reply)
  return { '@' .. member, int(number) .. ' ' .. reply }
end

-- Write the changes of `meta`, fields and values in turn: the last write of a call.
function SHARD.write(changes)
  if #changes > 0 then
    redis.call('HSET', K.meta, unpack(changes))
  end
  KEPT.put(shard_records)
end

-- Add a notice for a member: in the reply if it is the caller, else by its channel.
function SHARD.notify(member, notice)
  local list = notices[member]
  if not list then
    list = {}
    notices[member] = list
  end
  list[#list + 1] = notice
end

-- The last act of a script: a message is a hint, so a failure to publish changes nothing.
function SHARD.publish(caller)
  local channel = string.sub(K.meta, 1, -5) .. 'wake:'
  for member, list in pairs(notices) do
    if member ~= caller then
      redis.pcall(CHANNELS.publish, channel .. member,
        '["' .. read_fields[1] .. '",[' .. table.concat(list, ',') .. ']]')
    end
  end
end
