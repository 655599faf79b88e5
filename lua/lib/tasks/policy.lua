-- StrictFairTaskAdmissionPolicy (spec 04, Policies): a group at its admitted limit is denied
-- `group_cap` while another group's first task fits, wants one of its resources and is below its
-- own limit; without such a peer it may go beyond, so that nothing idles.

local function wants_one_of(signature, other)
  local mine, theirs = amounts_of(signature), amounts_of(other)
  if #mine.typed == 0 then
    return theirs.amounts.submission ~= nil
  end
  for i = 1, #mine.typed do
    if theirs.amounts[mine.typed[i]] then
      return true
    end
  end
  return false
end

local function has_peer_pressure(signature, fitting)
  for i = 1, #fitting do
    if head_of(fitting[i], 'open') and wants_one_of(signature, fitting[i]) then
      return true
    end
  end
  return false
end

-- The next task in fair order that fits and that the policy lets go; or nil and the reasons, by
-- how many signatures they hold back.
local function select_next()
  local waiting, fitting, reasons = redis.call('HKEYS', K.signatures), {}, {}
  for i = 1, #waiting do
    if fits(waiting[i]) then
      fitting[#fitting + 1] = waiting[i]
    else
      reasons.no_capacity = (reasons.no_capacity or 0) + 1
    end
  end
  local best
  for i = 1, #fitting do
    local open, capped = head_of(fitting[i], 'open'), head_of(fitting[i], 'capped')
    if open and (not best or open.order < best.order) then
      best = open
    end
    if capped then
      if has_peer_pressure(fitting[i], fitting) then
        reasons.group_cap = (reasons.group_cap or 0) + 1
      elseif not best or capped.order < best.order then
        best = capped
      end
    end
  end
  return best and group(best.group), reasons
end

local function refused(reason, detail)
  return '["refused","' .. reason .. '","' .. detail .. '"]'
end

-- What a task asks for and could never get, as a refusal; or nil.
local function never_fits(signature)
  for resource, amount in pairs(amounts_of(signature).amounts) do
    if limit_of(resource) == 0 then
      return refused('unknown_resource', resource)
    elseif amount > limit_of(resource) then
      return refused('never_fits', resource)
    end
  end
  return nil
end
