-- Add to `changes`, which holds field and value in turn, the first `numbers` of `fields` whose numbers
-- differ from those that `stored` lists. A 0 that is absent stays absent: a hash with fewer fields is
-- cheaper to read.
local function add_changes(fields, numbers, values, stored, changes)
  local n = #changes
  for i = 1, numbers do
    local value = values[fields[i]]
    if stored[i] ~= value and (stored[i] or value ~= 0) then
      changes[n + 1], changes[n + 2] = fields[i], real(value)
      n = n + 2
    end
  end
end
