-- The factor of estimates of input tokens for each domain, learned from real usage.
-- @include lib/requests/budgets
-- @include lib/requests/entries
local TOKENS = { least = 0.25, most = 4, weight = 1 / 8, least_estimate = 16 }

-- The recent ratio of real to estimated input tokens: 1 before anything was learned.
function TOKENS.factor(d)
  return d.token_factor > 0 and d.token_factor / 100 or 1
end

-- The draw of an attempt: its cost, of which the part after "/" is an estimate that the factor corrects. What the
-- factor alone would make too large for ever goes as it was estimated.
function TOKENS.cost(d, cost, estimate)
  local factor = TOKENS.factor(d)
  if estimate == 0 or factor == 1 then
    return cost
  end
  local corrected = cost - estimate + math.ceil(estimate * factor)
  return meta.budgets > 0 and BUDGETS.never_fits(corrected) and cost or corrected
end

-- An attempt's cost and the estimate in it, as its member gave them: "cost" or "cost/estimate".
function TOKENS.parse(given)
  local cost, estimate = NUMBERS[given] or tonumber(given), 0
  if not cost then
    cost, estimate = string.match(given, '^(%d+)/(%d+)$')
  end
  return tonumber(cost), tonumber(estimate)
end

-- The real tokens of an attempt, as its member gave them: "used" or "used/input/estimate", from which the factor
-- learns.
function TOKENS.used(d, given)
  local used = tonumber(given)
  if used then
    return used
  end
  local all, input, estimate = string.match(given, '^(%d+)/(%d+)/(%d+)$')
  input, estimate = tonumber(input), tonumber(estimate)
  if input > 0 and estimate >= TOKENS.least_estimate then
    local factor = TOKENS.factor(d)
    local seen = math.min(TOKENS.most, math.max(TOKENS.least, input / estimate))
    -- Hundredths, so that what has been learned is not written with every release.
    local learned = math.floor((factor + (seen - factor) * TOKENS.weight) * 100 + 0.5)
    if d.token_factor ~= learned then
      d.token_factor = learned
    end
  end
  return tonumber(all)
end
