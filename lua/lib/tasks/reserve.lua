-- The reservation for the first task that does not fit (design 04, *The ledger*; docs/adr/0009).
-- @include lib/tasks/strict
-- @include lib/tasks/borrow
-- @include lib/tasks/cooling
local RESERVE = { usual_after_us = 5000000, asks_judged = 32 }

function RESERVE.policy()
  return meta.policy == 'borrow' and BORROW or STRICT
end

-- The reserved amounts by resource, once the task was first for long enough; or nil.
function RESERVE.kept()
  local after_us = meta.reserve_after_us > 0 and meta.reserve_after_us or RESERVE.usual_after_us
  if meta.first_task == '' or now_us - meta.first_since_us < after_us or LEDGER.fits(meta.first_signature) then
    return nil
  end
  return LEDGER.amounts_of(meta.first_signature).amounts
end

-- Signatures that would fit if what one of them lacks were free.
function RESERVE.fitting_beside(signature)
  local free = LEDGER.amounts_of(signature).amounts
  return LINES.waiting(function(class)
    return LEDGER.fits(class, free) and RESERVE.can_go(class)
  end)
end

-- Whether a class can be admitted: served by a member and not in a cooldown; otherwise it gets no reservation.
function RESERVE.can_go(class)
  return CLASSES.is_served(class) and not COOLING.holds(class)
end

-- The first in order that the policy would let go if it fitted, judged beside all that would fit
-- then; nil where it does fit, as then nobody is starved. Heads that ask for the same are judged beside
-- the same; those of more asks than are judged in one call are passed over.
function RESERVE.first_without_room()
  local rule, beside, asks_left = RESERVE.policy(), {}, RESERVE.asks_judged
  local heads_found = rule.heads(LINES.waiting(RESERVE.can_go))
  for i = 1, #heads_found do
    local head = heads_found[i]
    local is_let_go = not rule.is_judged(head)
    if not is_let_go then
      local ask = string.match(head.signature, '^[^;]*') -- of its class
      if not beside[ask] and asks_left > 0 then
        beside[ask], asks_left = rule.beside(RESERVE.fitting_beside(head.signature)), asks_left - 1
      end
      is_let_go = beside[ask] and rule.may_go(head, beside[ask])
    end
    if is_let_go then
      return not LEDGER.fits(head.signature) and head or nil
    end
  end
  return nil
end

-- Note the first task without room, and the time since when it is first.
function RESERVE.note_first()
  local first = meta.state ~= 'paused' and RESERVE.first_without_room() or nil
  local id = first and GROUPS.of(first.group).head or ''
  if id ~= meta.first_task then
    meta.first_task, meta.first_signature = id, first and first.signature or ''
    meta.first_since_us = first and now_us or 0
  end
end
