-- Lines for people, of at most `line_width` columns; nothing is cut: what is longer goes on below, indented.
-- `lines.rows` has the same as typed rows for programs.
-- @include lib/split
local TEXT = { indent = '    ' }
local line_width = 100 -- most columns of a line in this call

-- A value for a terminal: characters other than printable ASCII are written as \xNN.
function TEXT.clean(value)
  return (string.gsub(tostring(value), '[^\32-\126]', function(c) return string.format('\\x%02x', string.byte(c)) end))
end

-- Add parts on as few lines as they need; a part that is longer than a line, such as a name, is broken.
function TEXT.add_parts(lines, parts, between)
  local line = ''
  for i = 1, #parts do
    local part = TEXT.clean(parts[i])
    local longer = i == 1 and part or line .. between .. part
    if #longer > line_width and i > 1 then
      lines[#lines + 1] = line
      longer = TEXT.indent .. part
    end
    while #longer > line_width do
      lines[#lines + 1] = string.sub(longer, 1, line_width)
      longer = TEXT.indent .. string.sub(longer, line_width + 1)
    end
    line = longer
  end
  lines[#lines + 1] = line
end

function TEXT.add_text(lines, text)
  TEXT.add_parts(lines, split(text, ' '), ' ')
end

-- A row whose table is too wide: each value beside its header.
function TEXT.add_record(lines, header, row)
  local parts = { header[1] .. ': ' .. tostring(row[1]) }
  for column = 2, #header do
    parts[column] = header[column] .. ' ' .. tostring(row[column])
  end
  TEXT.add_parts(lines, parts, '  ')
end

function TEXT.add_aligned(lines, row, widths)
  local cells = {}
  for column = 1, #row do
    local text = tostring(row[column])
    local blanks = string.rep(' ', widths[column] - #text)
    cells[column] = column == 1 and text .. blanks or blanks .. text
  end
  lines[#lines + 1] = table.concat(cells, '  ')
end

-- Add a table, the first column to the left, the others to the right, or a record for each row where
-- that would be too wide; `total` is how many rows there are in truth. One without rows is left out.
function TEXT.add_table(lines, header, rows, total)
  if #rows == 0 then
    return
  end
  local widths, width = {}, -2
  for column = 1, #header do
    widths[column] = #header[column]
    for i = 1, #rows do
      rows[i][column] = TEXT.clean(rows[i][column])
      widths[column] = math.max(widths[column], #rows[i][column])
    end
    width = width + 2 + widths[column]
  end
  lines[#lines + 1] = ''
  if width <= line_width then
    TEXT.add_aligned(lines, header, widths)
  end
  for i = 1, #rows do
    if width <= line_width then
      TEXT.add_aligned(lines, rows[i], widths)
    else
      TEXT.add_record(lines, header, rows[i])
    end
  end
  if total > #rows then
    lines[#lines + 1] = '... and ' .. (total - #rows) .. ' more'
  end
end

-- Add a row for programs: what it is of, and its fields, with units in their names.
function TEXT.add_row(lines, kind, row)
  row.row, lines.rows = kind, lines.rows or {}
  lines.rows[#lines.rows + 1] = row
end

-- Add rows for programs, and the table that shows them to people. `columns` has, of each column, its title, the field
-- that it shows, and the function of the field's value and the row that makes a text of it; "-" stands for no value.
function TEXT.add_rows(lines, kind, columns, rows, total)
  local header, cells = {}, {}
  for c = 1, #columns do
    header[c] = columns[c][1]
  end
  for i = 1, #rows do
    cells[i] = {}
    for c = 1, #columns do
      local field, shape = columns[c][2], columns[c][3]
      local value = rows[i][field]
      if value == nil then
        rows[i][field], cells[i][c] = cjson.null, '-'
      else
        cells[i][c] = shape and shape(value, rows[i]) or value
      end
    end
    TEXT.add_row(lines, kind, rows[i])
  end
  TEXT.add_table(lines, header, cells, total)
end

-- A length of time for programs: seconds, to the millisecond.
function TEXT.in_seconds(us)
  return math.floor(us / 1000 + 0.5) / 1000
end

-- The same for people.
function TEXT.span(seconds)
  return TEXT.age(seconds * 1000000)
end

function TEXT.ago(seconds)
  return TEXT.span(seconds) .. ' ago'
end

-- A length of time in words, of two digits.
function TEXT.age(us)
  local seconds = tonumber(us) / 1000000
  if seconds < 10 then
    return string.format('%.1f s', math.max(0, seconds))
  elseif seconds < 120 then
    return string.format('%d s', seconds)
  elseif seconds < 7200 then
    return string.format('%d min', seconds / 60)
  end
  return seconds < 172800 and string.format('%d h', seconds / 3600) or string.format('%d d', seconds / 86400)
end

-- A value as text; an empty one, or a 0 that means "none", as a dash.
function TEXT.or_dash(value)
  return (value == nil or value == 0 or value == '') and '-' or value
end

-- The time until a member expires, in words.
function TEXT.expires_in(left_us)
  return left_us > 0 and TEXT.age(left_us) or 'overdue ' .. TEXT.age(-left_us)
end

-- The row of a table under `TEXT.process_columns`: which process a member is, in the parts of `IDENTITY.of`.
TEXT.process_columns = { 'member', 'host', 'pid', 'program', 'version', 'for' }
function TEXT.process(member, part, at_us)
  local since_us = tonumber(part[5]) or 0
  return { member, part[1], part[2], part[3], part[4], since_us > 0 and TEXT.age(at_us - since_us) or '-' }
end

-- The line for a shard that no member has used.
function TEXT.unused(name, kind)
  local lines = {}
  TEXT.add_parts(lines, { name, 'nobody has used this ' .. kind .. '; list those in use' }, '  ')
  return lines
end
