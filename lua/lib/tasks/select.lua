-- Which task goes next (docs/adr/0009): what fits, what is kept for who has stood first for long, and
-- StrictFairTaskAdmissionPolicy (spec 04, Policies): a group at its admitted limit is denied
-- `group_cap` while another group's first task fits, wants one of its resources and is below its
-- own limit; without such a peer it may go beyond, so that nothing idles.
local RESERVE_AFTER_US = 5000000

-- What is kept for the first in order that has stood without fitting for long, by resource, or nil.
local function reservation()
  local after_us = meta.reserve_after_us > 0 and meta.reserve_after_us or RESERVE_AFTER_US
  if meta.first_task == '' or now_us - meta.first_since_us < after_us or fits(meta.first_signature) then
    return nil
  end
  return amounts_of(meta.first_signature).amounts
end

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

local function is_pressed(signature, fitting)
  local pressing = amounts_of(signature).pressing
  for i = 1, #fitting do
    if waiting_lines[fitting[i]].open > 0 then
      for j = 1, #pressing do
        if wants(fitting[i], pressing[j]) then
          return true
        end
      end
    end
  end
  return false
end

local function count_reason(reasons, reason, count)
  reasons[reason] = (reasons[reason] or 0) + count
end

local function choose_strictly(fitting, reasons)
  local best, best_hinted
  local function consider(head)
    if is_hinted(head.signature) then
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
      consider(head_of(fitting[i], 'open'))
    end
    if line.capped > 0 then
      if is_pressed(fitting[i], fitting) then
        count_reason(reasons, 'group_cap', line.capped)
      else
        consider(head_of(fitting[i], 'capped'))
      end
    end
  end
  return best or best_hinted
end

-- The next in order that fits and that the policy lets go, or nil; and why others may not, each
-- reason with how many groups it holds back.
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
        count_reason(reasons, reason, line.open + line.capped)
      else
        fitting[#fitting + 1] = signature
      end
    end
  end
  if #fitting == 0 then
    return nil, reasons
  elseif meta.policy == 'borrow' then
    return choose_by_debt(fitting, reasons), reasons
  end
  return choose_strictly(fitting, reasons), reasons
end

-- Note who stands first in order without fitting, and since when.
local function note_first()
  local first
  if meta.state ~= 'paused' then
    for signature, line in pairs(waiting_lines) do
      local head = line.open > 0 and head_of(signature, 'open')
      if head and (not first or head.order < first.order) then
        first = head
      end
    end
  end
  if first and (fits(first.signature) or owes(group(first.group), first.signature)) then
    first = nil
  end
  local id = first and group(first.group).head or ''
  if id ~= meta.first_task then
    meta.first_task, meta.first_signature = id, first and first.signature or ''
    meta.first_since_us = first and now_us or 0
  end
end
