-- StrictFairTaskAdmissionPolicy (design 04, *Policies*): a group at its admitted limit is denied
-- `group_cap` while another group's first task fits, wants one of its resources and is below its
-- own limit; without such a peer it may go beyond, so that nothing idles.
-- @include lib/tasks/lines
local STRICT = {}

-- The context of a policy's decision: the signatures that fit, and the resources that groups below their limit want.
function STRICT.beside(fitting)
  local wanted = {}
  for i = 1, #fitting do
    if waiting_lines[fitting[i]].open > 0 then
      for resource in pairs(LEDGER.amounts_of(fitting[i]).amounts) do
        wanted[resource] = true
      end
    end
  end
  return { fitting = fitting, wanted = wanted }
end

-- The heads that are looked at, in order: all groups of one line may go, or none.
function STRICT.heads(waiting)
  return LINES.fronts_of(waiting)
end

function STRICT.is_pressed(signature, beside)
  local pressing = LEDGER.amounts_of(signature).pressing
  for i = 1, #pressing do
    if beside.wanted[pressing[i]] then
      return true
    end
  end
  return false
end

-- Whether the context changes the decision about a head.
function STRICT.is_judged(head)
  return head.line == 'capped'
end

function STRICT.may_go(head, beside)
  return not STRICT.is_pressed(head.signature, beside)
end

-- The first in order that may go; hints put a head behind all that have none.
function STRICT.choose(beside, reasons)
  local fitting = beside.fitting
  local best, best_hinted
  local function consider(head)
    if LEDGER.is_hinted(head.signature) then
      if not best_hinted or head.order < best_hinted.order then
        best_hinted = head
      end
    elseif not best or head.order < best.order then
      best = head
    end
  end
  for i = 1, #fitting do
    local line = waiting_lines[fitting[i]]
    if line.open > 0 then
      consider(LINES.head_of(fitting[i], 'open'))
    end
    if line.capped > 0 then
      if STRICT.is_pressed(fitting[i], beside) then
        reasons.group_cap = (reasons.group_cap or 0) + line.capped
      else
        consider(LINES.head_of(fitting[i], 'capped'))
      end
    end
  end
  return best or best_hinted
end

-- The first of some heads, in order, that may go.
function STRICT.pick(heads_found, beside)
  for i = 1, #heads_found do
    if not STRICT.is_judged(heads_found[i]) or STRICT.may_go(heads_found[i], beside) then
      return heads_found[i]
    end
  end
  return nil
end

-- Change nothing: this policy has no state.
function STRICT.on_acquire()
end

function STRICT.on_release()
end
