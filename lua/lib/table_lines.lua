-- Lines for people, of at most 80 columns; nothing is cut: what is longer goes on below, indented.
-- @include lib/split
local TEXT = { width = 80, indent = '    ' }

-- Add parts on as few lines as they need; a part that is longer than a line, such as a name, is broken.
function TEXT.add_parts(lines, parts, between)
  local line = ''
  for i = 1, #parts do
    local longer = i == 1 and parts[i] or line .. between .. parts[i]
    if #longer > TEXT.width and i > 1 then
      lines[#lines + 1] = line
      longer = TEXT.indent .. parts[i]
    end
    while #longer > TEXT.width do
      lines[#lines + 1] = string.sub(longer, 1, TEXT.width)
      longer = TEXT.indent .. string.sub(longer, TEXT.width + 1)
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
      widths[column] = math.max(widths[column], #tostring(rows[i][column]))
    end
    width = width + 2 + widths[column]
  end
  lines[#lines + 1] = ''
  if width <= TEXT.width then
    TEXT.add_aligned(lines, header, widths)
  end
  for i = 1, #rows do
    if width <= TEXT.width then
      TEXT.add_aligned(lines, rows[i], widths)
    else
      TEXT.add_record(lines, header, rows[i])
    end
  end
  if total > #rows then
    lines[#lines + 1] = '... and ' .. (total - #rows) .. ' more'
  end
end

function TEXT.seconds(us)
  return string.format('%.3f s', tonumber(us) / 1000000)
end

-- Nothing, and 0 where it stands for "none", as a dash.
function TEXT.or_dash(value)
  return (value == nil or value == 0 or value == '') and '-' or value
end

-- How long a member has until it expires.
function TEXT.expires_in(left_us)
  return left_us > 0 and TEXT.seconds(left_us) or 'overdue ' .. TEXT.seconds(-left_us)
end

-- The row of a table under `TEXT.process_columns`: which process a member is, in the parts of `IDENTITY.of`.
TEXT.process_columns = { 'member', 'host', 'pid', 'program', 'version', 'for' }
function TEXT.process(member, part, at_us)
  local since_us = tonumber(part[5]) or 0
  return { member, part[1], part[2], part[3], part[4], since_us > 0 and TEXT.seconds(at_us - since_us) or '-' }
end

-- What says that there is nothing to show of a shard, where nobody has used it.
function TEXT.unused(name, kind)
  local lines = {}
  TEXT.add_parts(lines, { name, 'nobody has used this ' .. kind .. '; list those in use' }, '  ')
  return lines
end
