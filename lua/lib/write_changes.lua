-- Write the first `numbers` of `fields` whose numbers differ from those that `stored` lists, and what
-- `changes` holds already, as field and value in turn.
local function write_changes(key, fields, numbers, values, stored, changes)
  local n = #changes
  for i = 1, numbers do
    local value = values[fields[i]]
    if stored[i] ~= value then
      changes[n + 1], changes[n + 2] = fields[i], real(value)
      n = n + 2
    end
  end
  if n > 0 then
    redis.call('HSET', key, unpack(changes))
  end
end
