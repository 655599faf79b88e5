-- The answers of a shard to an operator's questions, in lines: `QUESTIONS.<name>(rows)`. Both kinds of shard answer
-- `events` and `who`; each kind adds its own.
-- @include lib/table_lines
-- @include lib/shard/look
-- @include lib/shard/identity
-- @include lib/shard/leases
local QUESTIONS = { most_leases = 1000, most_members = 1000, most_events = 500 }

-- The number of names of a sorted set that begin with `prefix` and a NUL.
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
    local flat, at_us, kind, parts, fields = found[i][2], nil, '?', {}, {}
    for j = 1, #flat, 2 do
      if flat[j] == 'at_us' then
        at_us = tonumber(flat[j + 1])
      elseif flat[j] == 'kind' then
        kind = flat[j + 1]
      elseif flat[j] ~= 'sequence' and flat[j + 1] ~= '' then
        parts[#parts + 1], fields[flat[j]] = flat[j] .. ' ' .. flat[j + 1], flat[j + 1]
      end
    end
    local first = (at_us and TEXT.age(now_us - at_us) or '?') .. ' ago'
    table.insert(parts, 1, first .. string.rep(' ', 12 - #first) .. kind)
    TEXT.add_parts(lines, parts, '  ')
    TEXT.add_row(lines, 'event', { at = at_us and TEXT.in_seconds(at_us) or cjson.null, kind = kind, fields = fields })
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

-- The holders of leases: the members with the most leases first, then the oldest leases.
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
    local looked_at, since_us = QUESTIONS.look_at_leases(list[i].name, math.floor(left / (shown - i + 1)), eldest)
    left = left - looked_at
    members[i] = QUESTIONS.process_row(list[i].name)
    members[i].leases, members[i].leases_looked_at = list[i].leases, looked_at
    members[i].held_for_up_to_seconds = since_us and TEXT.in_seconds(now_us - since_us)
    members[i].expires_in_seconds = TEXT.in_seconds(list[i].left_us)
  end
  TEXT.add_row(lines, 'totals', { leases = held, members = total, leases_looked_at = #eldest })
  TEXT.add_text(lines, 'leases ' .. held .. ', members ' .. total .. (held > #eldest and ', leases looked at '
    .. #eldest or ''))
  TEXT.add_rows(lines, 'member', QUESTIONS.holder_columns, members, total)
  table.sort(eldest, function(a, b) return a.since_us < b.since_us end)
  local leases = {}
  for i = 1, math.min(rows, #eldest) do
    leases[i] = QUESTIONS.lease_row(eldest[i].id, eldest[i].lease)
    leases[i].held_for_seconds = TEXT.in_seconds(now_us - eldest[i].since_us)
  end
  TEXT.add_rows(lines, 'lease', QUESTIONS.lease_columns, leases, held)
  return lines
end

-- Which process a member is, as fields of a row.
function QUESTIONS.process_row(member)
  local part = IDENTITY.of(member)
  return { member_id = member, host = part[1] ~= '-' and part[1] or nil, pid = tonumber(part[2]),
    program = part[3] ~= '-' and part[3] or nil, version = part[4] ~= '-' and part[4] or nil }
end

QUESTIONS.holder_columns = { { 'member', 'member_id' }, { 'host', 'host' }, { 'pid', 'pid' }, { 'program', 'program' },
  { 'leases', 'leases' },
  { 'held for up to', 'held_for_up_to_seconds', function(seconds, m)
    return TEXT.span(seconds) .. (m.leases_looked_at < m.leases and ' of ' .. m.leases_looked_at or '')
  end },
  { 'expires in', 'expires_in_seconds', function(seconds) return TEXT.expires_in(seconds * 1000000) end } }

-- The members: process, join time, last heartbeat, leases and waiters; the eldest heartbeat first. Each
-- kind of shard defines `QUESTIONS.held_columns`, and `QUESTIONS.add_held` for what a member has besides leases.
function QUESTIONS.members(rows)
  STATE.load()
  if not meta.generation then
    return nil
  end
  local stored, list, lines = redis.call('ZRANGE', K.members, '-inf', '+inf', 'BYSCORE', 'LIMIT', 0, rows, 'WITHSCORES'),
    {}, {}
  for i = 1, #stored, 2 do
    local row, left_us = QUESTIONS.process_row(stored[i]), tonumber(stored[i + 1]) - now_us
    local interval_us = tonumber(redis.call('HGET', K.intervals, stored[i]) or nil)
    local since_us = tonumber(IDENTITY.of(stored[i])[5]) or 0
    row.member_for_seconds = since_us > 0 and TEXT.in_seconds(now_us - since_us) or nil
    row.last_heartbeat_seconds_ago = interval_us and TEXT.in_seconds(3 * interval_us - left_us) or nil
    row.expires_in_seconds = TEXT.in_seconds(left_us)
    row.leases = QUESTIONS.count_under(K.held, stored[i] .. '\0lease')
    QUESTIONS.add_held(row)
    list[#list + 1] = row
  end
  local total, columns = redis.call('ZCARD', K.members), { unpack(QUESTIONS.member_columns) }
  for i = 1, #QUESTIONS.held_columns do
    columns[#columns + 1] = QUESTIONS.held_columns[i]
  end
  TEXT.add_row(lines, 'totals', { members = total })
  TEXT.add_text(lines, 'members ' .. total)
  TEXT.add_rows(lines, 'member', columns, list, total)
  return lines
end

QUESTIONS.member_columns = { { 'member', 'member_id' }, { 'host', 'host' }, { 'pid', 'pid' }, { 'program', 'program' },
  { 'version', 'version' }, { 'for', 'member_for_seconds', TEXT.span },
  { 'heartbeat', 'last_heartbeat_seconds_ago', TEXT.ago },
  { 'expires in', 'expires_in_seconds', function(seconds) return TEXT.expires_in(seconds * 1000000) end },
  { 'leases', 'leases' } }

-- Return the JSON reply of a script that reads this shard, for users without the right to EVAL. `what` names the
-- script. Each kind of shard defines `QUESTIONS.reads`.
function QUESTIONS.read(what, arguments)
  if what == 'audit' then
    return AUDIT.reply('json')
  end
  return LOOK.reply(function()
    return cjson.encode(QUESTIONS.reads[what](tonumber(arguments[1]), { unpack(arguments, 2) }))
  end)
end

-- The answer to a question, in lines of at most `width` columns and `lines.rows`. An audit tells damage by itself.
function QUESTIONS.answer(question, rows, most_entries, width, arguments)
  local refusal = SCHEMA.refusal()
  if refusal then
    return refusal
  elseif question == 'read' then
    return QUESTIONS.read(arguments[1], { unpack(arguments, 2) })
  elseif question == 'audit' then
    return AUDIT.reply('lines', most_entries)
  end
  line_width = width or line_width
  local name, kind = string.match(K.meta, '{(.-)}'), string.find(K.meta, '{pool:', 1, true) and 'pool' or 'shard'
  return LOOK.reply(function() return QUESTIONS[question](rows) or TEXT.unused(name, kind) end)
end
