-- Read the fields of a hash into a list: the first `numbers` as numbers, nil where one is absent, the
-- rest as text, false where one is absent.
local function read_numbers(key, fields, numbers)
  local values = redis.call('HMGET', key, unpack(fields))
  for i = 1, numbers do
    values[i] = tonumber(values[i])
  end
  return values
end
