-- The audit of every shard: the books of members, leases and finished ids, worked out again
-- and compared with what is stored. Differences are named by key, expected and found.
-- @include lib/read_hash
-- @include lib/real
-- @include lib/split
-- @include lib/shard/look
-- @include lib/shard/leases
-- @include lib/shard/groups
local AUDIT = { most_told = 100, most_entries = 100000 }
local differences, difference_count = {}, 0
local books = { held = {} } -- what is worked out, by what it is compared with

function AUDIT.differs(kind, what, expected, found)
  difference_count = difference_count + 1
  if difference_count <= AUDIT.most_told then
    differences[difference_count] = K[kind] .. ' ' .. string.gsub(what, '%z', ' ') .. ': expected '
      .. string.gsub(tostring(expected), '%z', ' ') .. ', found ' .. string.gsub(tostring(found), '%z', ' ')
  end
end

function AUDIT.expect(kind, what, expected, found)
  if expected ~= found then
    AUDIT.differs(kind, what, expected, found)
  end
end

-- Compare a number of the shard's record.
function AUDIT.expect_count(name, expected)
  AUDIT.expect('meta', name, expected, meta[name])
end

-- The names of a sorted set with their scores.
function AUDIT.read(kind)
  local flat, scores = redis.call('ZRANGE', K[kind], 0, -1, 'WITHSCORES'), {}
  for i = 1, #flat, 2 do
    scores[flat[i]] = tonumber(flat[i + 1])
  end
  return scores
end

-- Names that should stand in a sorted set, each with its score, or with what is no number for any score.
function AUDIT.expect_names(kind, expected, found)
  found = found or AUDIT.read(kind)
  for name, score in pairs(expected) do
    if not found[name] then
      AUDIT.differs(kind, name, 'present', 'absent')
    elseif type(score) == 'number' and found[name] ~= score then
      AUDIT.differs(kind, 'score of ' .. name, real(score), real(found[name]))
    end
  end
  for name in pairs(found) do
    if expected[name] == nil then
      AUDIT.differs(kind, name, 'absent', 'present')
    end
  end
end

-- Counts by name, where none and 0 are the same.
function AUDIT.expect_counts(kind, expected, found)
  for name, amount in pairs(expected) do
    AUDIT.expect(kind, name, amount, tonumber(found[name]) or 0)
  end
  for name, amount in pairs(found) do
    if not expected[name] then
      AUDIT.expect(kind, name, 0, tonumber(amount))
    end
  end
end

function AUDIT.expect_members(kind, names)
  for i = 1, #names do
    if not books.members[names[i]] then
      AUDIT.differs(kind, names[i], 'a member', 'none')
    end
  end
end

-- Add a member's lease or waiter to the books, with its entry in `held`.
function AUDIT.book_held(member, kind, id, entry)
  books.held[entry or member .. '\0' .. kind .. '\0' .. id] = true
  if not books.members[member] then
    AUDIT.differs('members', member .. ' of ' .. kind .. ' ' .. id, 'present', 'absent')
  end
end

-- Take each lease into the books by `book`, which its kind of shard has; no finished id is a live lease's.
function AUDIT.book_leases(book)
  local finished = AUDIT.read('finished')
  for id, text in pairs(read_hash(K.leases)) do
    book(id, LEASES.parse(text), text)
    if finished[id] then
      AUDIT.differs('finished', id, 'absent while its lease is live', 'present')
    end
  end
end

-- Compare the members with their checks; other entries by member must be of members.
function AUDIT.audit_members()
  local checks = {}
  for member in pairs(books.members) do
    checks[member] = true
  end
  AUDIT.expect_names('checks', checks)
  AUDIT.expect_members('intervals', redis.call('HKEYS', K.intervals))
  AUDIT.expect_members('suspects', redis.call('ZRANGE', K.suspects, 0, -1))
  AUDIT.expect_members('meta', SHARD.callers())
end

-- The number of entries of some keys, hashes and sorted sets.
function AUDIT.count(hashes, sets)
  local count = 0
  for i = 1, #hashes do
    count = count + redis.call('HLEN', K[hashes[i]])
  end
  for i = 1, #sets do
    count = count + redis.call('ZCARD', K[sets[i]])
  end
  return count
end

-- Compare all: `AUDIT.totals` what takes the same time whatever the shard holds, `AUDIT.entries` single entries, where
-- there are at most `most`. Returns how many entries there are, and whether they were compared.
function AUDIT.compare(most)
  STATE.load()
  local entries = AUDIT.count(AUDIT.hashes, AUDIT.sets)
  local is_complete = entries <= most
  AUDIT.expect_count('suspects', redis.call('ZCARD', K.suspects))
  AUDIT.totals()
  if is_complete then
    books.members = AUDIT.read('members')
    AUDIT.entries()
    AUDIT.audit_members()
  end
  return entries, is_complete
end

-- Compare as far as the shard can be read: a key that is damaged is a difference.
function AUDIT.compare_readable(most)
  local is_readable, entries, is_complete = pcall(function()
    LOOK.check_head()
    local mistyped = redis.call('EXISTS', K.meta) == 1 and DAMAGE.mistyped()[1]
    if mistyped then
      DAMAGE.raise(mistyped)
    end
    return AUDIT.compare(most)
  end)
  if is_readable then
    return entries, is_complete
  end
  local message = DAMAGE.text(entries)
  if not DAMAGE.is_damage(message) then
    error(entries, 0)
  end
  local names = DAMAGE.names(message)
  for i = 1, math.max(1, #names) do
    AUDIT.differs(names[i] or 'meta', 'key', 'one that can be read', names[i] and 'a damaged one' or message)
  end
  return 0, false
end

-- The reply of an audit, which compares single entries where there are at most `most`.
function AUDIT.reply(as, most)
  most = most or AUDIT.most_entries
  local entries, is_complete = AUDIT.compare_readable(most)
  table.sort(differences)
  if as == 'lines' then
    return AUDIT.lines(entries, is_complete, most)
  end
  return cjson.encode({ entries = entries, is_complete = is_complete, differences = differences,
    difference_count = difference_count })
end

-- The first line says `ok` or how many differences follow; `entries` is no part of the reply,
-- nor are `rows`, the same for programs.
function AUDIT.lines(entries, is_complete, most)
  local lines = { entries = entries, difference_count > 0 and difference_count .. ' differences' or 'ok' }
  if not is_complete then
    lines[1] = lines[1] .. ' in the totals; single entries were not compared: ' .. entries
      .. ' are more than ' .. most
  end
  for i = 1, #differences do
    lines[#lines + 1] = differences[i]
  end
  lines.rows = { { row = 'audit', is_ok = difference_count == 0, difference_count = difference_count, entries = entries,
    is_complete = is_complete or false } }
  for i = 1, #differences do
    lines.rows[i + 1] = { row = 'difference', says = differences[i] }
  end
  if difference_count > #differences then
    lines[#lines + 1] = '... and ' .. (difference_count - #differences) .. ' more'
  end
  return lines
end
