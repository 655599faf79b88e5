-- The choice of the next task (docs/adr/0009): of what fits beside what is kept, the first in order that the
-- policy lets go.
-- @include lib/tasks/lost
-- @include lib/tasks/reserve
local SELECT = {}

-- The reason why tasks of a class cannot be admitted now, or nil. Beside a reservation fits what leaves it what it needs.
function SELECT.holds_back(signature, kept)
  local reason
  if COOLING.holds(signature) then
    return 'cooldown'
  end
  for resource, amount in pairs(LEDGER.amounts_of(signature).amounts) do
    local left = LEDGER.left_of(resource)
    if amount > left then
      return 'no_capacity'
    elseif kept and kept[resource] and amount > left - kept[resource] then
      reason = 'reserved'
    end
  end
  return reason
end

-- The first suspect that a member may take, beside what is kept, or nil; and whether the member is given
-- nothing at all. Suspects go before others: they came before. Without a member none is looked for.
function LOST.next(member)
  if not member or LOST.takes_nothing(member) then
    return nil, member ~= nil
  end
  local kept, ids = RESERVE.kept(), LOST.first()
  for i = 1, #ids do
    local task = TASKS.named(ids[i])
    if LOST.may_take(member, task)
      and (task.losses >= LOST.max() or not SELECT.holds_back(CLASSES.of(task), kept)) then
      return { group = task.group, signature = CLASSES.of(task), suspect = ids[i], borrowed = {} }
    end
  end
  return nil, false
end

-- The first task of a group, behind its first, that a member serves and that fits, as a head; or nil.
function CLASSES.first_behind(member, head, kept)
  local name = head.group
  local found = redis.call('ZRANGE', K.fifo, '[' .. name .. '\0', '(' .. name .. '\1', 'BYLEX',
    'LIMIT', 1, CLASSES.tasks_behind)
  for i = 1, #found do
    local id = string.match(found[i], '^[^%z]*%z[^%z]*%z(.*)$')
    local task = TASKS.named(id)
    if CLASSES.serves(member, task.fn) and not SELECT.holds_back(CLASSES.of(task), kept) then
      return { group = name, signature = CLASSES.of(task), line = head.line, behind = id, borrowed = {} }
    end
  end
  return nil
end

-- Tasks that a member serves behind first tasks that it does not serve: they hold it up no more than the policy
-- does. Asked where no first task may go by this member and one may by another, of few groups and few tasks.
function CLASSES.next_behind(member, kept, beside)
  local list = {}
  local fronts = LINES.first_heads(LINES.waiting(function(class)
    return not CLASSES.serves(member, CLASSES.function_of(class))
  end), CLASSES.groups_behind)
  for i = 1, #fronts do
    if GROUPS.of(fronts[i].group).waiting > 1 then
      list[#list + 1] = CLASSES.first_behind(member, fronts[i], kept)
    end
  end
  return RESERVE.policy().pick(list, beside)
end

-- The next that a member may take, or any member where none is named, or nil; and why others may not,
-- each reason with how many groups it holds back.
function SELECT.next(member)
  local reasons, fitting = {}, {}
  if meta.parked > 0 then
    reasons.never_fits = meta.parked
  end
  if meta.recovering_us > 0 then
    return nil, reasons -- members may hold leases that the pool does not know yet
  elseif meta.state == 'paused' then
    reasons.paused = meta.queued + meta.suspect_tasks
    return nil, reasons
  end
  if meta.unserved > 0 then
    reasons.not_served = meta.unserved
  end
  if meta.lost > 0 then
    local head, is_full = LOST.next(member)
    reasons.suspect = not head and meta.suspect_tasks > 0 and meta.suspect_tasks or nil
    if head or is_full then
      return head, reasons
    end
  end
  local kept = RESERVE.kept()
  for signature, line in pairs(waiting_lines) do
    if line.open + line.capped > 0 then
      local reason = not CLASSES.serves(member, CLASSES.function_of(signature)) and 'not_served'
        or SELECT.holds_back(signature, kept)
      if reason then
        reasons[reason] = (reasons[reason] or 0) + line.open + line.capped
      else
        fitting[#fitting + 1] = signature
      end
    end
  end
  local rule = RESERVE.policy()
  local beside = rule.beside(fitting)
  local head = #fitting > 0 and rule.choose(beside, reasons) or nil
  if not head and member and reasons.not_served and SELECT.next() then
    head = CLASSES.next_behind(member, kept, beside)
  end
  return head, reasons
end
