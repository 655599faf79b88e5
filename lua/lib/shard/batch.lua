-- A member's batch: its operations in order, once (design 06, *Exactly once*).
-- @include lib/shard/operations
-- @include lib/shard/members
-- @include lib/shard/save
-- @include lib/shard/inventory
local BATCH = {}

-- Read the operations that stand in ARGV from `at` on: their words, the place of each one's first argument and of
-- its last; then the ids of leases that they ask for, and of those that are to be. Or nil and an error.
function BATCH.read(at)
  local given, end_at = ARGV, #ARGV
  local words, firsts, lasts, ids, new_ids, n = {}, {}, {}, {}, {}, 0
  while at <= end_at do
    local word, first = given[at], at + 1
    local form = FORMS[word]
    local count = form and form[1]
    if not count then
      first, count = at + 2, tonumber(given[at + 1])
    end
    at = first + (count or end_at)
    if at > end_at + 1 or not OPERATIONS[word] then
      return nil, redis.error_reply('BADBATCH operation ' .. tostring(word))
    end
    if form then
      local allowed, lease = form[3], form[4]
      if allowed and not allowed[given[first + form[2] - 1]] then
        return nil, redis.error_reply('BADBATCH ' .. word .. ' ' .. given[first + form[2] - 1])
      end
      if lease then
        ids[#ids + 1] = given[first]
        if lease == 'to_be' then
          new_ids[#new_ids + 1] = given[first]
        end
      end
    end
    n = n + 1
    words[n], firsts[n], lasts[n] = word, first, at - 1
  end
  return words, firsts, lasts, ids, new_ids
end

-- Carry out the operations that were read; returns the results.
function BATCH.carry_out(words, firsts, lasts)
  local given, results = ARGV, {}
  for i = 1, #words do
    local word, first, last = words[i], firsts[i], lasts[i]
    first_argument, last_argument = first, last
    if has_left and FOR_MEMBERS[word] then
      results[i] = '["error","NOMEMBER","' .. caller .. '"]'
    else
      results[i] = OPERATIONS[word](unpack(given, first, last - first > 9 and first + 9 or last))
    end
  end
  return results
end

-- Carry out the operations that stand in ARGV from `at` on; returns the reply, or raises where a record cannot be
-- read. Of each kind of shard are `STATE`, whose `read_ahead` reads what a batch asks for of leases, and `SETTLING`.
function BATCH.run_whole(member, number, at)
  SHARD.read(member, STATE.fields)
  local repeated = SHARD.replay(number)
  if repeated then
    return repeated
  end
  local words, firsts, lasts, ids, new_ids = BATCH.read(at)
  if not words then
    return firsts
  end
  if #words > 1 then
    LEASES.collect()
  end
  STATE.load()
  if not meta.generation then
    return redis.error_reply('NOMEMBER ' .. member) -- the shard is gone: nothing may grow here
  end
  SUSPECTS.set_caller(member)
  if meta.recovering_us > 0 then
    if words[#words] ~= 'leave' and redis.call('ZSCORE', K.awaited, member) == '0' then
      return redis.error_reply('NOMEMBER ' .. member) -- it is to join again and to state what it holds, first of all
    end
    REBUILD.continue() -- after that refusal, which saves nothing
  end
  SETTLING.begin()
  if not MEMBERS.has_caller() then
    SETTLING.finish()
    SHARD.save({})
    SHARD.publish('')
    return redis.error_reply('NOMEMBER ' .. member)
  end
  if #ids > 1 then
    STATE.read_ahead(ids, new_ids)
  end
  local results = BATCH.carry_out(words, firsts, lasts)
  if has_left and redis.call('ZSCORE', K.awaited, member) == '1' then
    REBUILD.note_stated(member) -- it has joined again; of one that has not, calls may still run
  end
  SETTLING.finish()
  local reply = SHARD.reply(member, SETTLING.next_wake_us(), results)
  SHARD.save(has_left and {} or SHARD.keeping(member, number, reply))
  SHARD.publish(member)
  return reply
end

-- Handle an error of a call: the reply, which is the error itself where it tells of no damage or comes again and again
-- while the shard is rebuilt, as it is then a fault of this code.
function BATCH.note_damage(member, raised)
  local message = DAMAGE.text(raised)
  if not DAMAGE.is_damage(message) then
    return DAMAGE.pass_on(raised)
  end
  local names, is_hash = table.concat(DAMAGE.names(message), ', '), redis.call('TYPE', K.meta).ok == 'hash'
  if is_hash and redis.call('HINCRBY', K.meta, 'damages', 1) > DAMAGE.most_in_a_row then
    return DAMAGE.pass_on(raised)
  end
  local kept = is_hash and redis.call('HGET', K.meta, '@' .. member)
  if kept and not string.find(kept, '^%d+ ') then
    redis.call('HDEL', K.meta, '@' .. member) -- else none of its calls would be taken
  end
  DAMAGE.mark(names ~= '' and names or (string.gsub(message, '[^%w%s:_.,()-]', ' ')))
  return redis.error_reply('NOMEMBER ' .. member)
end

-- Carry out a batch on a shard that may be damaged.
function BATCH.run(member, number, at)
  local is_whole, reply = pcall(BATCH.run_whole, member, number, at)
  return is_whole and reply or BATCH.note_damage(member, reply)
end
