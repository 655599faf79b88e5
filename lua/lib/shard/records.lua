-- Records: a field of `meta` as text with "|" between its parts, and the table that it stands for, whose
-- `text` is the text as it is stored, false before it is. `fields` names the parts: the first
-- `fields.often` are numbers that most calls change; then come, up to `fields.numbers`, numbers that few
-- change, and texts. The text of what few change is made only where one of them changed, as a formatted
-- number costs as much as ten steps of Lua.
-- @include lib/split
-- @include lib/real
-- @include lib/shard/kept
-- @include lib/shard/events
local RECORDS = {}
local now_text = '' -- the shard's time in this call
local shard_records -- those of this call, by field of `meta`

function RECORDS.parse(text, fields)
  local parts, record, rest = text and split(text, '|') or {}, { text = text, rest_text = false }, {}
  for i = 1, #fields do
    local part = parts[i]
    if i <= fields.numbers then
      part = tonumber(part) or 0
    end
    if i <= fields.often then
      record[fields[i]] = part
    else
      rest[fields[i]] = part or ''
    end
  end
  return setmetatable(record, { __index = rest, __newindex = function(_, name, value)
    if rest[name] == nil then
      rawset(record, name, value) -- no part of the text
    elseif rest[name] ~= value then
      rest[name], record.rest_text = value, false
    end
  end })
end

function RECORDS.pack(record, fields)
  local parts, often = {}, fields.often
  for i = 1, often do
    local n = record[fields[i]]
    parts[i] = INTS[n] or n == now_us and now_text or real(n)
  end
  if not record.rest_text then
    local rest = {}
    for i = often + 1, #fields do
      local part = record[fields[i]]
      rest[i - often] = i <= fields.numbers and real(part) or part
    end
    record.rest_text = table.concat(rest, '|')
  end
  parts[often + 1] = record.rest_text
  return table.concat(parts, '|')
end

-- Records with names of their own: name=value, "|" between.
function RECORDS.parse_named(text)
  local values = {}
  for name, value in string.gmatch(text or '', '([^|=]+)=([^|]*)') do
    values[name] = value
  end
  return { text = text, values = values, is_changed = false }
end

function RECORDS.pack_named(values)
  local parts = {}
  for name, value in pairs(values) do
    parts[#parts + 1] = name .. '=' .. value
  end
  table.sort(parts)
  return table.concat(parts, '|')
end

-- The record of a field of `meta` that was read as `text`: as it was kept, or parsed; without `fields` one of
-- named values.
function RECORDS.of(field, text, fields)
  local record = shard_records[field]
  if not record or record.text ~= text then
    record = fields and RECORDS.parse(text, fields) or RECORDS.parse_named(text)
    shard_records[field] = record
  end
  return record
end

-- Note the text of a record among `changes`, fields and values in turn, if it is another than is stored.
function RECORDS.note(changes, field, record, text)
  if record.text ~= text then
    record.text = text
    local n = #changes
    changes[n + 1], changes[n + 2] = field, text
  end
end
