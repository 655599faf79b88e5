-- Which task goes next (docs/adr/0009): of what fits beside what is kept, the first in order that the
-- policy lets go.

-- Why a signature cannot go now, or nil. Beside a reservation fits what leaves it what it needs.
local function holds_back(signature, kept)
  local reason
  for resource, amount in pairs(amounts_of(signature).amounts) do
    local left = left_of(resource)
    if amount > left then
      return 'no_capacity'
    elseif kept and kept[resource] and amount > left - kept[resource] then
      reason = 'reserved'
    end
  end
  return reason
end

-- The next that goes, or nil; and why others may not, each reason with how many groups it holds back.
local function select_next()
  local reasons, fitting = {}, {}
  if meta.parked > 0 then
    reasons.never_fits = meta.parked
  end
  if meta.state == 'paused' then
    reasons.paused = meta.queued
    return nil, reasons
  end
  local kept = reservation()
  for signature, line in pairs(waiting_lines) do
    if line.open + line.capped > 0 then
      local reason = holds_back(signature, kept)
      if reason then
        reasons[reason] = (reasons[reason] or 0) + line.open + line.capped
      else
        fitting[#fitting + 1] = signature
      end
    end
  end
  local rule = policy_in_force()
  return #fitting > 0 and rule.choose(rule.beside(fitting), reasons) or nil, reasons
end
