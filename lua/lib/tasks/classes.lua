-- Which member may take a task (design 04, *Functions*). A group stands in the line of its first task's class,
-- "signature;function", so that a member's choice is among whole lines. Tasks of a function that nobody
-- serves wait in `unserved` and hold up nobody of their groups.
-- @include lib/tasks/lines
local CLASSES = { asked_at_once = 500, groups_behind = 8, tasks_behind = 64 }
local served_by = {} -- member, or '' for any -> function -> whether it is served
local class_functions = {}

function CLASSES.of(task)
  return task.signature .. ';' .. task.fn
end

function CLASSES.function_of(class)
  local fn = class_functions[class]
  if not fn then
    fn = string.match(class, ';([^;]*)$')
    class_functions[class] = fn
  end
  return fn
end

-- Whether a member serves a function; without a member, whether any does.
function CLASSES.serves(member, fn)
  if fn == '' then
    return true
  end
  local key = member or ''
  served_by[key] = served_by[key] or {}
  local known = served_by[key]
  if known[fn] == nil then
    if member then
      known[fn] = redis.call('ZSCORE', K.held, member .. '\0function\0' .. fn) and true or false
    else
      known[fn] = redis.call('HEXISTS', K.functions, fn) == 1
    end
  end
  return known[fn]
end

-- Whether any member serves the function of a class.
function CLASSES.is_served(class)
  return CLASSES.serves(nil, CLASSES.function_of(class))
end

function CLASSES.forget_served()
  served_by = {}
end

-- The functions of what waits, and how many classes wait.
function CLASSES.waiting_functions()
  local is_known, functions, count = { [''] = true }, {}, 0
  for class, line in pairs(waiting_lines) do
    local fn = CLASSES.function_of(class)
    if line.open + line.capped > 0 then
      count = count + 1
      if not is_known[fn] then
        is_known[fn] = true
        functions[#functions + 1] = fn
      end
    end
  end
  return functions, count
end

-- The functions, of some, that a member serves, as text: members of one kind may take the same.
function CLASSES.kind_of(member, functions)
  local known, kind = served_by[member] or {}, {}
  for from = 1, #functions, CLASSES.asked_at_once do
    local names = {}
    for i = from, math.min(#functions, from + CLASSES.asked_at_once - 1) do
      names[#names + 1] = member .. '\0function\0' .. functions[i]
    end
    local scores = redis.call('ZMSCORE', K.held, unpack(names))
    for i = 1, #names do
      known[functions[from + i - 1]] = scores[i] and true or false
      kind[#kind + 1] = scores[i] and '1' or '0'
    end
  end
  served_by[member] = known
  return table.concat(kind)
end

function CLASSES.unserved_member(id, task)
  return task.fn .. '\0' .. task.arrival .. '\0' .. id
end
