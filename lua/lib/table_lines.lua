-- Add a table as aligned lines, the first column to the left, the others to the right; `total` is
-- how many rows there are in truth. A table without rows is left out.
local function add_table(lines, header, rows, total)
  if #rows == 0 then
    return
  end
  local widths = {}
  for column = 1, #header do
    widths[column] = #header[column]
    for i = 1, #rows do
      widths[column] = math.max(widths[column], #tostring(rows[i][column]))
    end
  end
  local function add(row)
    local cells = {}
    for column = 1, #header do
      local text = tostring(row[column])
      local blanks = string.rep(' ', widths[column] - #text)
      cells[column] = column == 1 and text .. blanks or blanks .. text
    end
    lines[#lines + 1] = table.concat(cells, '  ')
  end
  lines[#lines + 1] = ''
  add(header)
  for i = 1, #rows do
    add(rows[i])
  end
  if total > #rows then
    lines[#lines + 1] = '... and ' .. (total - #rows) .. ' more'
  end
end
