-- What an audit reports: differences, named by key, expected and found.
local MAX_DIFFERENCES = 100
local differences, difference_count = {}, 0

local function differs(kind, what, expected, found)
  difference_count = difference_count + 1
  if difference_count <= MAX_DIFFERENCES then
    differences[difference_count] = K[kind] .. ' ' .. string.gsub(what, '%z', ' ') .. ': expected '
      .. string.gsub(tostring(expected), '%z', ' ') .. ', found '
      .. string.gsub(tostring(found), '%z', ' ')
  end
end

local function expect(kind, what, expected, found)
  if expected ~= found then
    differs(kind, what, expected, found)
  end
end

-- The names of a sorted set.
local function read_names(kind)
  local list, names = redis.call('ZRANGE', K[kind], 0, -1), {}
  for i = 1, #list do
    names[list[i]] = true
  end
  return names
end

local function expect_names(kind, expected, found)
  for name in pairs(expected) do
    if not found[name] then
      differs(kind, name, 'present', 'absent')
    end
  end
  for name in pairs(found) do
    if not expected[name] then
      differs(kind, name, 'absent', 'present')
    end
  end
end

-- Counts by name, where none and 0 are the same.
local function expect_counts(kind, expected, found)
  for name, amount in pairs(expected) do
    expect(kind, name, amount, tonumber(found[name]) or 0)
  end
  for name, amount in pairs(found) do
    if not expected[name] then
      expect(kind, name, 0, tonumber(amount))
    end
  end
end

-- The first line says `ok` or how many differences follow.
local function audit_lines(found, most)
  local lines = { 'ok' }
  if found.difference_count > 0 then
    lines = { found.difference_count .. ' differences' }
  end
  if not found.is_complete then
    lines[1] = lines[1] .. ' in the totals; single entries were not compared: ' .. found.entries
      .. ' are more than ' .. most
  end
  for i = 1, #found.differences do
    lines[#lines + 1] = found.differences[i]
  end
  if found.difference_count > #found.differences then
    lines[#lines + 1] = '... and ' .. (found.difference_count - #found.differences) .. ' more'
  end
  return lines
end
