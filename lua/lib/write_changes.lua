-- Write those of `fields` whose value in `values` differs from what `stored` held as text.
local function write_changes(key, fields, values, stored)
  local changes, n = {}, 0
  for i = 1, #fields do
    local field = fields[i]
    local value = values[field]
    if type(value) == 'number' then
      if tonumber(stored[field]) ~= value then
        changes[n + 1], changes[n + 2] = field, real(value)
        n = n + 2
      end
    elseif stored[field] ~= value then
      changes[n + 1], changes[n + 2] = field, value
      n = n + 2
    end
  end
  if n > 0 then
    redis.call('HSET', key, unpack(changes))
  end
end
