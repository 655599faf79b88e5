-- BoundedBorrowTaskAdmissionPolicy (design 04, *Policies*; docs/adr/0009): under pressure a group stays
-- within its share and out of debt; without, it may borrow up to a ceiling. What a group has out and
-- what it owes stand in its record, by resource, and change no availability.
-- @include lib/shard/leases
-- @include lib/tasks/lines
local BORROW = {}
local borrowing -- the pool's settings of this policy, read when first asked for

do -- a script may have 200 locals at a time; these are nobody else's, and none outlives a call
  local HEADS_PER_CHOICE = 32

  local function settings()
    borrowing = borrowing or read_hash(K.config)
    return borrowing
  end

  -- What a head is judged beside: the signatures that fit, and the first heads of them.
  function BORROW.beside(fitting)
    return { fitting = fitting, heads = BORROW.heads(fitting), weights = {}, pressing = {}, passes = {} }
  end

  -- Each head's share, and so what it may, depends on what it is judged beside.
  function BORROW.is_judged()
    return true
  end

  -- The heads that are looked at, in order.
  function BORROW.heads(waiting)
    return LINES.first_heads(waiting, HEADS_PER_CHOICE)
  end

  -- The sum of weights of the groups whose first task fits and wants a resource.
  local function weight_on(resource, beside)
    local weight = beside.weights[resource]
    if not weight then
      weight = 0
      for i = 1, #beside.fitting do
        if LEDGER.wants(beside.fitting[i], resource) then
          weight = weight + waiting_lines[beside.fitting[i]].weight
        end
      end
      beside.weights[resource] = weight
    end
    return weight
  end

  -- A group's part of a limit by its weight; alone it is as if one equal peer existed.
  local function share_of(g, resource, beside)
    local own, all = LINES.millionths(g.weight), weight_on(resource, beside)
    if all <= own then
      all = 2 * own
    end
    local part = LEDGER.limit_of(resource) * own / all
    part = settings().share_rounding == 'down' and math.floor(part) or math.ceil(part)
    return math.max(1, math.min(part, tonumber(g.admitted_limit) or part))
  end

  local function ceiling_of(g, resource, share)
    local set = settings()
    local ceiling = tonumber(set['ceiling:' .. g.name .. '\0' .. resource]) or tonumber(set.ceiling)
    return ceiling or math.max(0, LEDGER.limit_of(resource) - (tonumber(set.ceiling_reserve) or 0) - share)
  end

  local function is_unlimited(g)
    return (g.admitted_limit or '') == ''
  end

  -- Whether a head would pass in its turn on all its resources: one that would not holds back nobody.
  local function would_pass(head, beside)
    if beside.passes[head] == nil then
      local g, asked = GROUPS.of(head.group), LEDGER.amounts_of(head.signature)
      local out, debt = LEDGER.parse_amounts(g.out), LEDGER.parse_amounts(g.debt)
      beside.passes[head] = true
      for i = 1, is_unlimited(g) and 0 or #asked.names do
        local resource, amount = asked.names[i], asked.amounts[asked.names[i]]
        if (debt[resource] or 0) > 0
          or (out[resource] or 0) + amount > share_of(g, resource, beside) then
          beside.passes[head] = false
        end
      end
    end
    return beside.passes[head]
  end

  -- The groups that press on a resource: how many, and which.
  local function pressing_on(resource, beside)
    local found = beside.pressing[resource]
    if not found then
      found = { count = 0, groups = {} }
      for i = 1, #beside.heads do
        if LEDGER.wants(beside.heads[i].signature, resource) and would_pass(beside.heads[i], beside) then
          found.count, found.groups[beside.heads[i].group] = found.count + 1, true
        end
      end
      beside.pressing[resource] = found
    end
    return found
  end

  local function is_pressed_on(resource, head, beside)
    local pressing = LEDGER.amounts_of(head.signature).pressing
    for i = 1, #pressing do
      if pressing[i] == resource then
        local found = pressing_on(resource, beside)
        return found.count > (found.groups[head.group] and 1 or 0)
      end
    end
    return false
  end

  -- Why a head may not go, or nil and what it would borrow.
  local function evaluate(head, beside)
    local g, borrowed = GROUPS.of(head.group), {}
    local out, debt = LEDGER.parse_amounts(g.out), LEDGER.parse_amounts(g.debt)
    local asked = LEDGER.amounts_of(head.signature)
    -- One that runs nothing is let go, or peers would wait for each other; one without limit always.
    local is_let_go = is_unlimited(g) or (tonumber(g.running) or 0) == 0
    for i = 1, #asked.names do
      local resource, amount = asked.names[i], asked.amounts[asked.names[i]]
      local share, owed = share_of(g, resource, beside), debt[resource] or 0
      local over = math.min(amount, (out[resource] or 0) + amount - share)
      if not is_let_go and is_pressed_on(resource, head, beside) then
        if owed > 0 then
          return 'borrow_debt'
        elseif over > 0 then
          return 'group_cap'
        end
      elseif over > 0 then
        if not is_let_go and owed + over > ceiling_of(g, resource, share) then
          return 'borrow_debt'
        end
        borrowed[resource] = over
      end
    end
    return nil, borrowed
  end

  function BORROW.may_go(head, beside)
    return evaluate(head, beside) == nil
  end

  -- The first of some heads, in order, that may go.
  function BORROW.pick(heads_found, beside)
    for i = 1, #heads_found do
      local reason, borrowed = evaluate(heads_found[i], beside)
      if not reason then
        heads_found[i].borrowed = borrowed
        return heads_found[i]
      end
    end
    return nil
  end

  -- The first in order that may go; hints put a head behind all that have none.
  function BORROW.choose(beside, reasons)
    local best_hinted
    for i = 1, #beside.heads do
      local head = beside.heads[i]
      local reason, borrowed = evaluate(head, beside)
      head.borrowed = borrowed
      if reason then
        reasons[reason] = (reasons[reason] or 0) + 1
      elseif not LEDGER.is_hinted(head.signature) then
        return head
      else
        best_hinted = best_hinted or head
      end
    end
    return best_hinted
  end

  -- What falls below 0 is packed as nothing.
  local function add_amounts(text, amounts, sign)
    local sums = LEDGER.parse_amounts(text)
    for resource, amount in pairs(amounts) do
      sums[resource] = (sums[resource] or 0) + sign * amount
    end
    return LEDGER.pack_amounts(sums)
  end

  function BORROW.on_acquire(g, head)
    g.out = add_amounts(g.out, LEDGER.amounts_of(head.signature).amounts, 1)
    g.debt = add_amounts(g.debt, head.borrowed, 1)
  end

  -- Any lease that ends repays what it held.
  function BORROW.on_release(g, signature)
    g.out = add_amounts(g.out, LEDGER.amounts_of(signature).amounts, -1)
    g.debt = add_amounts(g.debt, LEDGER.amounts_of(signature).amounts, -1)
  end

  -- Work out again what each group has out; what it owes stays.
  function BORROW.count_out()
    local counted = {}
    LEASES.flush()
    local all = redis.call('HVALS', K.leases)
    for i = 1, #all do
      local lease = LEASES.parse(all[i])
      local g = GROUPS.of(lease.group)
      if not counted[lease.group] then
        counted[lease.group], g.out, g.dirty = true, '', true
      end
      if meta.policy == 'borrow' then
        g.out = add_amounts(g.out, LEDGER.amounts_of(lease.signature).amounts, 1)
      end
    end
    return counted
  end

  -- The policy is another now: nobody owes, and the other one does not write down what is out.
  function BORROW.recount()
    for name in pairs(BORROW.count_out()) do
      GROUPS.of(name).debt = ''
    end
  end
end
