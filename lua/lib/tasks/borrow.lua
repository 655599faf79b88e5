-- BoundedBorrowTaskAdmissionPolicy (spec 04, Policies; docs/adr/0009): under pressure a group stays
-- within its share and out of debt; without, it may borrow up to a ceiling. What a group has out and
-- what it owes stand in its record, by resource, and change no availability.
local HEADS_PER_CHOICE = 32
local borrowing -- the pool's settings of this policy, read when first asked for

local function owes(g, signature)
  local debt = parse_amounts(g.debt)
  for resource in pairs(amounts_of(signature).amounts) do
    if (debt[resource] or 0) > 0 then
      return true
    end
  end
  return false
end

local function settings()
  borrowing = borrowing or read_hash(K.config)
  return borrowing
end

-- What all groups weigh whose first task fits and wants a resource.
local function weight_on(resource, fitting)
  local weight = 0
  for i = 1, #fitting do
    if wants(fitting[i], resource) then
      weight = weight + waiting_lines[fitting[i]].weight
    end
  end
  return weight
end

-- A group's part of a limit by its weight; alone it is as if one equal peer existed.
local function share_of(g, resource, fitting)
  local own, all = millionths(g.weight), weight_on(resource, fitting)
  if all <= own then
    all = 2 * own
  end
  local part = limit_of(resource) * own / all
  part = settings().share_rounding == 'down' and math.floor(part) or math.ceil(part)
  return math.max(1, math.min(part, tonumber(g.admitted_limit) or part))
end

local function ceiling_of(g, resource, share)
  local set = settings()
  local ceiling = tonumber(set['ceiling:' .. g.name .. '\0' .. resource]) or tonumber(set.ceiling)
  return ceiling or math.max(0, limit_of(resource) - (tonumber(set.ceiling_reserve) or 0) - share)
end

-- The first heads, in order, of all lines that fit.
local function first_heads(fitting)
  local list = {}
  for i = 1, #fitting do
    for j = 1, #LINES do
      local found = heads_of(fitting[i], LINES[j], HEADS_PER_CHOICE)
      for k = 1, #found do
        list[#list + 1] = found[k]
      end
    end
  end
  table.sort(list, function(a, b) return a.order < b.order end)
  while #list > HEADS_PER_CHOICE do
    list[#list] = nil
  end
  return list
end

-- Whether a head's group would pass in its turn on this resource.
local function presses(head, resource, fitting)
  local amount = amounts_of(head.signature).amounts[resource]
  local g = group(head.group)
  if not amount then
    return false
  elseif (g.admitted_limit or '') == '' then
    return true
  end
  local out, debt = parse_amounts(g.out), parse_amounts(g.debt)
  return (debt[resource] or 0) == 0
    and (out[resource] or 0) + amount <= share_of(g, resource, fitting)
end

local function is_pressed_on(resource, head, list, fitting)
  local pressing, is_pressing = amounts_of(head.signature).pressing, false
  for i = 1, #pressing do
    is_pressing = is_pressing or pressing[i] == resource
  end
  if not is_pressing then
    return false
  end
  for i = 1, #list do
    if list[i].group ~= head.group and presses(list[i], resource, fitting) then
      return true
    end
  end
  return false
end

-- Why a head may not go, or nil and what it would borrow.
local function evaluate(head, list, fitting)
  local g, borrowed = group(head.group), {}
  local out, debt = parse_amounts(g.out), parse_amounts(g.debt)
  local asked = amounts_of(head.signature)
  for i = 1, #asked.names do
    local resource, amount = asked.names[i], asked.amounts[asked.names[i]]
    local share, owed = share_of(g, resource, fitting), debt[resource] or 0
    local over = math.min(amount, (out[resource] or 0) + amount - share)
    if is_pressed_on(resource, head, list, fitting) then
      if owed > 0 then
        return 'borrow_debt'
      elseif over > 0 then
        return 'group_cap'
      end
    elseif over > 0 then
      if owed + over > ceiling_of(g, resource, share) and (tonumber(g.running) or 0) > 0 then
        return 'borrow_debt'
      end
      borrowed[resource] = over
    end
  end
  return nil, borrowed
end

-- Hints put a head behind all that have none.
local function choose_by_debt(fitting, reasons)
  local list = first_heads(fitting)
  local best_hinted
  for i = 1, #list do
    local head = list[i]
    local reason, borrowed = evaluate(head, list, fitting)
    head.borrowed = borrowed
    if reason then
      reasons[reason] = (reasons[reason] or 0) + 1
    elseif not is_hinted(head.signature) then
      return head
    else
      best_hinted = best_hinted or head
    end
  end
  return best_hinted
end

local function add_amounts(text, amounts, sign)
  local sums = parse_amounts(text)
  for resource, amount in pairs(amounts) do
    sums[resource] = math.max(0, (sums[resource] or 0) + sign * amount)
  end
  return pack_amounts(sums)
end

local function on_acquire(g, head)
  if meta.policy == 'borrow' then
    g.out = add_amounts(g.out, amounts_of(head.signature).amounts, 1)
    g.debt = add_amounts(g.debt, head.borrowed, 1)
  end
end

-- Any lease that ends repays what it held.
local function on_release(g, signature)
  if meta.policy == 'borrow' then
    g.out = add_amounts(g.out, amounts_of(signature).amounts, -1)
    g.debt = add_amounts(g.debt, amounts_of(signature).amounts, -1)
  end
end

-- Work out again what each group has out: the other policy does not write it down.
local function recount_out()
  local counted = {}
  local all = redis.call('HVALS', K.leases)
  for i = 1, #all do
    local lease = parse_lease(all[i])
    local g = group(lease.group)
    if not counted[lease.group] then
      counted[lease.group], g.out, g.debt, g.dirty = true, '', '', true
    end
    if meta.policy == 'borrow' then
      g.out = add_amounts(g.out, amounts_of(lease.signature).amounts, 1)
    end
  end
end
