-- The shards of a server, as an operator asks about one or about all of them.
-- @include lib/table_lines
-- @include lib/clock
-- @include lib/int
-- @include lib/operator/looks
local FLEET = { index = 'fb:shards', most_shards = 100, rows_of_one = 20, rows_of_each = 5, most_rows = 100,
  most_entries = 100000 }

-- The reply of a command; nil and the error where the server refuses it.
function FLEET.read(...)
  local found = redis.pcall(...)
  if type(found) == 'table' and found.err then
    return nil, found.err
  end
  return found
end

-- The tags of all shards, sorted; nil and the reason where they cannot be read.
function FLEET.tags()
  local tags, why = FLEET.read('SMEMBERS', FLEET.index)
  if tags then
    table.sort(tags)
  end
  return tags, why
end

-- The keys of a shard in the order of its script, nil for an invalid tag.
function FLEET.keys_of(tag)
  local look = LOOKS[string.match(tag, '^(%a+):[^{}]+$') or '']
  local keys = {}
  for i = 1, look and #look.kinds or 0 do
    keys[i] = 'fb:{' .. tag .. '}:' .. look.kinds[i]
  end
  return look and keys
end

-- The tag that an operator means by any key of the shard, its tag, or its name alone.
function FLEET.tag_of(given)
  local tag = string.match(given, '{([^{}]+)}') or given
  if FLEET.keys_of(tag) then
    return tag
  end
  for kind in pairs(LOOKS) do
    if FLEET.read('SISMEMBER', FLEET.index, kind .. ':' .. tag) == 1 then
      return kind .. ':' .. tag
    end
  end
  return nil
end

-- Of a shard that cannot be read: why, in lines and as a row.
function FLEET.problem(says)
  local lines = {}
  TEXT.add_text(lines, says)
  TEXT.add_row(lines, 'problem', { says = says })
  return lines
end

-- The answer of one shard in lines, and the number of audited entries; an unreadable shard has its error as lines.
function FLEET.look(tag, question, rows, most_entries)
  local keys = FLEET.keys_of(tag)
  local is_read, lines = pcall(function()
    return keys and LOOKS[string.match(tag, '^%a+')].ask(keys, { question, tostring(rows), tostring(most_entries),
      tostring(line_width) }) or FLEET.problem('not the tag of a shard that this version knows')
  end)
  if not is_read or lines.err then
    local message = not is_read and (type(lines) == 'table' and lines.err or tostring(lines)) or lines.err
    lines = FLEET.problem((string.gsub(message, '^SCHEMA (%S+)$', 'written with schema version %1, which this version '
      .. 'does not speak')))
  end
  if lines[1] == '' then
    table.remove(lines, 1)
  end
  for i = 1, #(lines.rows or {}) do
    lines.rows[i].shard = tag
  end
  return lines, lines.entries or 0
end

-- The reply of a shard's script, by its name and arguments; raises the script's own error.
function FLEET.read_shard(tag, arguments)
  local keys = FLEET.keys_of(tag)
  if not keys then
    return redis.error_reply('UNKNOWN no shard is called ' .. TEXT.clean(tag))
  end
  local is_read, reply = pcall(LOOKS[string.match(tag, '^%a+')].ask, keys, { 'read', '', '', '', unpack(arguments) })
  return is_read and reply or redis.error_reply(type(reply) == 'table' and reply.err or tostring(reply))
end

-- The row of one shard in the list of all.
function FLEET.row(tag, read_us)
  local key = 'fb:{' .. tag .. '}:'
  local found, why = FLEET.read('HMGET', key .. 'meta', 'generation', 'record')
  if not FLEET.keys_of(tag) then
    return { shard = tag, state = 'not known' }
  elseif not found then
    local is_forbidden = string.find(why, 'ACL', 1, true) or string.find(why, 'NOPERM', 1, true)
      or string.find(why, 'permission', 1, true)
    return { shard = tag, state = is_forbidden and 'no right to it' or 'damaged' }
  end
  local members, leases = FLEET.read('ZCARD', key .. 'members'), FLEET.read('HLEN', key .. 'leases')
  local waiting = FLEET.read('HLEN', key .. 'waiters')
  if string.sub(tag, 1, 3) ~= 'rq:' then
    waiting = FLEET.read('HLEN', key .. 'tasks')
    waiting = waiting and leases and math.max(0, waiting - leases)
  end
  local last_us, recovering = string.match(found[2] or '', '^%d+|(%d+)|%d*|%d*|%d*|(%d*)')
  local state = recovering and tonumber(recovering) and tonumber(recovering) > 0 and 'rebuilding' or 'open'
  if not (members and leases and waiting) then
    state = 'damaged'
  elseif not found[1] or not last_us then
    state = members > 0 and 'damaged' or 'unused'
  end
  return { shard = tag, members = members or nil, leases = leases or nil, waiting = waiting or nil,
    last_call_seconds_ago = last_us and TEXT.in_seconds(read_us - last_us), state = state }
end

FLEET.columns = { { 'shard', 'shard' }, { 'members', 'members' }, { 'leases', 'leases' }, { 'waiting', 'waiting' },
  { 'last call', 'last_call_seconds_ago', TEXT.ago }, { 'state', 'state' } }

-- The list of all shards.
function FLEET.list(rows)
  local tags, why = FLEET.tags()
  if not tags then
    return FLEET.problem('the index fb:shards cannot be read: ' .. why)
  elseif #tags == 0 then
    return { 'no shard: nobody has used Forebay on this server' }
  end
  local list, lines, read_us = {}, {}, server_time_us()
  for i = 1, math.min(rows, #tags) do
    list[i] = FLEET.row(tags[i], read_us)
  end
  TEXT.add_rows(lines, 'shard', FLEET.columns, list, #tags)
  table.remove(lines, 1)
  return lines
end

-- The answers of all shards, one after the other; of an audit a line for each shard that agrees.
function FLEET.ask_all(question, rows)
  local tags = FLEET.tags()
  if not tags or #tags == 0 then
    return FLEET.list(1)
  end
  local lines, left, differ = { rows = {} }, FLEET.most_entries, 0
  for i = 1, math.min(FLEET.most_shards, #tags) do
    local found, entries = FLEET.look(tags[i], question, rows, left)
    for j = 1, #(found.rows or {}) do
      lines.rows[#lines.rows + 1] = found.rows[j]
    end
    left = math.max(0, left - entries)
    if question == 'audit' then
      differ = differ + (string.sub(found[1], 1, 2) == 'ok' and 0 or 1)
      TEXT.add_parts(lines, { tags[i], table.remove(found, 1) }, '  ')
    else
      lines[#lines + 1] = i > 1 and '' or nil
      TEXT.add_parts(lines, { '== ' .. tags[i] }, ' ')
    end
    for j = 1, #found do
      lines[#lines + 1] = found[j]
    end
  end
  if question == 'audit' then
    table.insert(lines, 1, differ == 0 and 'ok' or differ .. ' of ' .. #tags .. ' shards differ')
  end
  if #tags > FLEET.most_shards then
    lines[#lines + 1] = '... and ' .. (#tags - FLEET.most_shards) .. ' more shards: name one'
  end
  return lines
end

-- The answer to a question about one shard, as an operator names it, or about all.
function FLEET.ask(question, named, rows)
  if named == '' then
    return FLEET.ask_all(question, rows or FLEET.rows_of_each)
  end
  local tag = FLEET.tag_of(named)
  if not tag then
    local lines = FLEET.problem(TEXT.clean('no shard is called ' .. string.sub(named, 1, 60)))
    TEXT.add_text(lines, 'expected one as fb_shards lists it, such as rq:provider/model or pool:default')
    return lines
  end
  return (FLEET.look(tag, question, rows or FLEET.rows_of_one, FLEET.most_entries))
end

-- A value of a row as programs read it: a text without what is no printable ASCII.
function FLEET.clean(value)
  if type(value) ~= 'table' then
    return type(value) == 'string' and TEXT.clean(value) or value
  end
  local cleaned = {}
  for name, part in pairs(value) do
    cleaned[FLEET.clean(name)] = FLEET.clean(part)
  end
  return cleaned
end

-- An answer's rows for programs, each a JSON object with the instant of the answer.
function FLEET.rows(lines)
  local texts, at_seconds = {}, TEXT.in_seconds(server_time_us())
  for i = 1, #(lines.rows or {}) do
    local row = FLEET.clean(lines.rows[i])
    row.captured_at = at_seconds
    texts[i] = cjson.encode(row)
  end
  return texts
end
