-- Lines of groups (design 04, *The queue*; docs/adr/0009). A group that waits stands in the line of its
-- first task's resource signature: the `open` one while it runs fewer tasks than its admitted limit or
-- has none, else the `capped` one. So what fits is asked once per signature, and pressure is a look
-- at heads of lines, never a scan of groups.
-- @include lib/shard/groups
-- @include lib/tasks/state
local LINES = { kinds = { 'open', 'capped' } }
local groups_in_lines = 0 -- groups in all lines
local waiting_lines -- signature -> how many groups stand in each of its lines, and what they weigh
local stored_lines
local heads = {}

function LINES.load()
  if waiting_lines then
    return
  end
  waiting_lines, stored_lines = {}, read_hash(K.signatures)
  for signature, text in pairs(stored_lines) do
    local part = split(text, '|')
    waiting_lines[signature] = { open = tonumber(part[1]), capped = tonumber(part[2]),
      weight = tonumber(part[3]) }
    groups_in_lines = groups_in_lines + waiting_lines[signature].open + waiting_lines[signature].capped
  end
end

function LINES.write()
  local changed, emptied = {}, {}
  for signature, line in pairs(waiting_lines) do
    if line.open + line.capped > 0 then
      local text = int(line.open) .. '|' .. int(line.capped) .. '|' .. int(line.weight)
      if text ~= stored_lines[signature] then
        local n = #changed
        changed[n + 1], changed[n + 2] = signature, text
      end
    elseif stored_lines[signature] then
      emptied[#emptied + 1] = signature
    end
  end
  if #changed > 0 and next(stored_lines) == nil then
    EXPIRY.with_shard('signatures')
  end
  write_many('HSET', K.signatures, changed) -- first, so that the key goes on
  write_many('HDEL', K.signatures, emptied)
end

-- Weights are summed in millionths, so that sums are exact.
function LINES.millionths(weight)
  return math.floor(weight * 1000000 + 0.5)
end

function LINES.member(g)
  return g.signature .. '\0' .. g.line .. '\0' .. string.format('%024.9f', g.tag) .. '\0'
    .. string.format('%016.0f', g.place) .. '\0' .. g.name
end

function LINES.count(g, by)
  local line = waiting_lines[g.signature]
  if not line then
    line = { open = 0, capped = 0, weight = 0 }
    waiting_lines[g.signature] = line
  end
  line[g.line], groups_in_lines = line[g.line] + by, groups_in_lines + by
  line.weight = line.weight + by * LINES.millionths(g.weight)
  heads[g.signature] = nil
end

function LINES.leave(g)
  if (g.line or '') == '' then
    return
  end
  redis.call('ZREM', K.ready, g.member or LINES.member(g))
  LINES.count(g, -1)
  g.line, g.member, g.dirty = '', nil, true
end

function LINES.is_capped(g)
  local limit = tonumber(g.admitted_limit)
  return limit and (tonumber(g.running) or 0) >= limit
end

-- Stand where the group belongs by its first task, tag and place; it stood nowhere.
function LINES.line_up(g, signature)
  g.signature, g.line, g.dirty = signature, LINES.is_capped(g) and 'capped' or 'open', true
  if groups_in_lines == 0 then
    EXPIRY.with_shard('ready')
  end
  g.member = LINES.member(g)
  redis.call('ZADD', K.ready, 0, g.member)
  LINES.count(g, 1)
end

-- Stand where the group belongs after its running tasks or its limit changed.
function LINES.change(g)
  if (g.line or '') ~= '' and g.line ~= (LINES.is_capped(g) and 'capped' or 'open') then
    LINES.leave(g)
    LINES.line_up(g, g.signature)
  end
end

-- Set a group's weight and limit to those of its latest task.
function LINES.set_terms(g, weight, admitted_limit)
  if weight ~= g.weight then
    if (g.line or '') ~= '' then
      local line = waiting_lines[g.signature]
      line.weight = line.weight + LINES.millionths(weight) - LINES.millionths(g.weight)
    end
    g.weight, g.dirty = weight, true
  end
  if g.admitted_limit ~= admitted_limit then
    g.admitted_limit, g.dirty = admitted_limit, true
    LINES.change(g)
  end
end

-- The first `most` groups of a line, with their order; kept while the line is unchanged.
function LINES.heads_of(signature, line, most)
  local known = heads[signature]
  if not known then
    known = {}
    heads[signature] = known
  end
  local list = known[line]
  if not list or (list.asked_for < most and #list == list.asked_for) then
    list = { asked_for = most }
    if waiting_lines[signature][line] > 0 then
      local prefix = signature .. '\0' .. line
      local found = redis.call('ZRANGE', K.ready, '[' .. prefix .. '\0', '(' .. prefix .. '\1', 'BYLEX',
        'LIMIT', 0, most)
      for i = 1, #found do
        local tag, place, name = string.match(found[i], '^[^%z]*%z[^%z]*%z([^%z]*)%z([^%z]*)%z(.*)$')
        list[i] = { order = tag .. place, group = name, signature = signature, line = line, rank = i }
      end
    end
    known[line] = list
  end
  return list
end

function LINES.head_of(signature, line)
  return LINES.heads_of(signature, line, 1)[1]
end

-- The classes in whose lines somebody stands: those that `is_meant`, or all where it is left out.
function LINES.waiting(is_meant)
  local list = {}
  for class, line in pairs(waiting_lines) do
    if line.open + line.capped > 0 and (not is_meant or is_meant(class)) then
      list[#list + 1] = class
    end
  end
  return list
end

-- The first group of each line of some signatures, in order.
function LINES.fronts_of(asked)
  local list = {}
  for i = 1, #asked do
    for j = 1, #LINES.kinds do
      list[#list + 1] = LINES.head_of(asked[i], LINES.kinds[j])
    end
  end
  table.sort(list, function(a, b) return a.order < b.order end)
  return list
end

-- The group behind another in its line; where those read are used up, four times as many are read.
function LINES.behind(head, most)
  local list = heads[head.signature][head.line]
  if head.rank == #list then
    list = LINES.heads_of(head.signature, head.line, math.min(most, 4 * head.rank))
  end
  return list[head.rank + 1]
end

-- The first `most` groups of the lines of some signatures, in order; of a line few are read, and more
-- as they are come to.
function LINES.first_heads(asked, most)
  local fronts, list = LINES.fronts_of(asked), {}
  while fronts[1] and #list < most do
    local head = table.remove(fronts, 1)
    list[#list + 1] = head
    local behind = LINES.behind(head, most)
    if behind then
      local at = 1
      while fronts[at] and fronts[at].order < behind.order do
        at = at + 1
      end
      table.insert(fronts, at, behind)
    end
  end
  return list
end
