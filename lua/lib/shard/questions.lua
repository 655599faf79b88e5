-- What an operator asks of a shard, answered in lines for people: `QUESTIONS.<name>(rows)`. Both kinds of shard answer
-- `events` and `who`; each kind adds its own.
-- @include lib/table_lines
-- @include lib/shard/look
-- @include lib/shard/identity
-- @include lib/shard/leases
local QUESTIONS = { most_leases = 1000, most_members = 1000, longest = 10, most_events = 500 }

-- How many names of a sorted set begin with `prefix` and a NUL.
function QUESTIONS.count_under(key, prefix)
  return redis.call('ZLEXCOUNT', key, '[' .. prefix .. '\0', '(' .. prefix .. '\1')
end

function QUESTIONS.fields_of(entry)
  local fields, flat = {}, entry[2]
  for i = 1, #flat, 2 do
    fields[flat[i]] = flat[i + 1]
  end
  return fields
end

-- The last events, the latest first: kind, how long ago, and what else it says.
function QUESTIONS.events(rows)
  STATE.load()
  local found, lines = redis.call('XREVRANGE', K.events, '+', '-', 'COUNT', rows), {}
  for i = 1, #found do
    local flat, at_us, kind, parts = found[i][2], nil, '?', {}
    for j = 1, #flat, 2 do
      if flat[j] == 'at_us' then
        at_us = tonumber(flat[j + 1])
      elseif flat[j] == 'kind' then
        kind = flat[j + 1]
      elseif flat[j] ~= 'sequence' and flat[j + 1] ~= '' then
        parts[#parts + 1] = flat[j] .. ' ' .. flat[j + 1]
      end
    end
    local first = (at_us and TEXT.age(now_us - at_us) or '?') .. ' ago'
    table.insert(parts, 1, first .. string.rep(' ', 12 - #first) .. kind)
    TEXT.add_parts(lines, parts, '  ')
  end
  return #lines > 0 and lines or { 'no event' }
end

-- Look at leases of a member, at most `left` of them: how many were looked at, and since when the eldest is held.
-- Each goes into `eldest`, the leases that are held the longest.
function QUESTIONS.look_at_leases(member, left, eldest)
  local items, ids = redis.call('ZRANGE', K.held, '[' .. member .. '\0lease\0', '(' .. member .. '\0lease\1', 'BYLEX',
    'LIMIT', 0, left), {}
  for i = 1, #items do
    ids[i] = string.sub(items[i], #member + 8)
  end
  local since_us
  for from = 1, #ids, 500 do
    local last = math.min(#ids, from + 499)
    local texts = redis.call('HMGET', K.leases, unpack(ids, from, last))
    for i = 1, #texts do
      local lease = texts[i] and LEASES.parse(texts[i])
      local acquired_us = lease and tonumber(lease.acquired_us)
      if acquired_us then
        since_us = math.min(since_us or acquired_us, acquired_us)
        eldest[#eldest + 1] = { id = ids[from + i - 1], lease = lease, since_us = acquired_us }
      end
    end
  end
  return #ids, since_us
end

-- The members that hold the most, of the first ones by expiry, and how many there are in all.
function QUESTIONS.holders()
  local stored, list = redis.call('ZRANGE', K.members, '-inf', '+inf', 'BYSCORE', 'LIMIT', 0, QUESTIONS.most_members,
    'WITHSCORES'), {}
  for i = 1, #stored, 2 do
    list[#list + 1] = { name = stored[i], left_us = tonumber(stored[i + 1]) - now_us,
      leases = QUESTIONS.count_under(K.held, stored[i] .. '\0lease') }
  end
  table.sort(list, function(a, b)
    if a.leases ~= b.leases then
      return a.leases > b.leases
    end
    return a.name < b.name
  end)
  return list, redis.call('ZCARD', K.members)
end

-- Who holds leases, and how long: the members with the most leases first, then the leases that are held the longest.
-- Each kind of shard defines `QUESTIONS.lease_columns`, and `QUESTIONS.lease_row` for what a lease is of.
function QUESTIONS.who(rows)
  STATE.load()
  if not meta.generation then
    return nil
  end
  local list, total = QUESTIONS.holders()
  local lines, members, eldest, left, held = {}, {}, {}, QUESTIONS.most_leases, redis.call('HLEN', K.leases)
  local shown = math.min(rows, #list)
  for i = 1, shown do
    local m = list[i]
    local looked_at, since_us = QUESTIONS.look_at_leases(m.name, math.floor(left / (shown - i + 1)), eldest)
    left = left - looked_at
    members[i] = QUESTIONS.member_row(m, since_us and TEXT.age(now_us - since_us) or '-', looked_at)
  end
  TEXT.add_text(lines, 'leases ' .. held .. ', members ' .. total .. (held > #eldest and ', leases looked at '
    .. #eldest or ''))
  TEXT.add_table(lines, QUESTIONS.member_columns, members, total)
  table.sort(eldest, function(a, b) return a.since_us < b.since_us end)
  local leases = {}
  for i = 1, math.min(QUESTIONS.longest, #eldest) do
    local one = eldest[i]
    leases[i] = QUESTIONS.lease_row(one.id, one.lease)
    table.insert(leases[i], TEXT.age(now_us - one.since_us))
  end
  TEXT.add_table(lines, QUESTIONS.lease_columns, leases, held)
  return lines
end

QUESTIONS.member_columns = { 'member', 'host', 'pid', 'program', 'leases', 'held for up to', 'expires in' }
function QUESTIONS.member_row(m, longest, looked_at)
  if looked_at < m.leases then
    longest = looked_at == 0 and 'not looked at' or longest .. ' of ' .. looked_at
  end
  local process = IDENTITY.of(m.name)
  return { m.name, process[1], process[2], process[3], m.leases, longest, TEXT.expires_in(m.left_us) }
end

-- The answer to a question, in lines. An audit tells damage by itself.
function QUESTIONS.answer(question, rows, most_entries)
  local refusal = SCHEMA.refusal()
  if refusal then
    return refusal
  elseif question == 'audit' then
    return AUDIT.reply('lines', most_entries)
  end
  local name, kind = string.match(K.meta, '{(.-)}'), string.find(K.meta, '{pool:', 1, true) and 'pool' or 'shard'
  return LOOK.reply(function() return QUESTIONS[question](rows) or TEXT.unused(name, kind) end)
end
