-- A member's batch: its operations in order, once (spec 06, Exactly once).
-- @include lib/shard/operations
-- @include lib/shard/members
-- @include lib/shard/save
local BATCH = {}

-- The operations from `at` on, each as its function, its word, and the places of its first and last argument;
-- then the ids of leases that they ask for, and of those that are to be. Or nil and an error.
function BATCH.read(at)
  local calls, ids, new_ids, last = {}, {}, {}, #ARGV
  while at <= last do
    local word = ARGV[at]
    local run, form = OPERATIONS[word], FORMS[word] or {}
    local first, count = at + 1, form[1]
    if not count then
      first, count = at + 2, tonumber(ARGV[at + 1])
    end
    at = count and first + count or last + 2
    if not run or at > last + 1 then
      return nil, redis.error_reply('BADBATCH operation ' .. tostring(word))
    end
    if form[3] and not form[3][ARGV[first + form[2] - 1]] then
      return nil, redis.error_reply('BADBATCH ' .. word .. ' ' .. ARGV[first + form[2] - 1])
    end
    calls[#calls + 1] = { run, word, first, at - 1 }
    if form[4] then
      ids[#ids + 1] = ARGV[first]
      new_ids[#new_ids + 1] = form[4] == 'to_be' and ARGV[first] or nil
    end
  end
  return calls, ids, new_ids
end

-- Carry out what was read; returns the results.
function BATCH.carry_out(calls)
  local results = {}
  for i = 1, #calls do
    local call = calls[i]
    first_argument, last_argument = call[3], call[4]
    results[i] = has_left and FOR_MEMBERS[call[2]] and '["error","NOMEMBER","' .. caller .. '"]'
      or call[1](unpack(ARGV, call[3], math.min(call[4], call[3] + 9)))
  end
  return results
end

-- Carry out the operations that stand in ARGV from `at` on; returns the reply. Of each kind of shard are `STATE`
-- and `SETTLING`.
function BATCH.run(member, number, at)
  SHARD.read(member, STATE.fields)
  local repeated = SHARD.replay(number)
  if repeated then
    return repeated
  end
  local calls, ids, new_ids = BATCH.read(at)
  if not calls then
    return ids
  end
  if #calls > 1 then
    LEASES.collect()
  end
  STATE.load()
  if not meta.generation then
    return redis.error_reply('NOMEMBER ' .. member) -- the shard is gone: nothing may grow here
  end
  SUSPECTS.set_caller(member)
  SETTLING.begin()
  if not MEMBERS.has_caller() then
    SETTLING.finish()
    SHARD.save({})
    SHARD.publish('')
    return redis.error_reply('NOMEMBER ' .. member)
  end
  if #ids > 1 then
    LEASES.read_ahead(ids, new_ids)
  end
  local results = BATCH.carry_out(calls)
  SETTLING.finish()
  local reply = SHARD.reply(member, SETTLING.next_wake_us(), results)
  SHARD.save(has_left and {} or SHARD.keeping(member, number, reply))
  SHARD.publish(member)
  return reply
end
