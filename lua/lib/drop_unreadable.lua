-- Delete the keys that are not of their type, of pairs name and type; returns the first such name, nil for none.
local function drop_unreadable(types)
  local dropped
  for i = 1, #types do
    local name, expected = types[i][1], types[i][2]
    local found = redis.call('TYPE', K[name]).ok
    if found ~= expected and found ~= 'none' then
      redis.call('UNLINK', K[name])
      dropped = dropped or name
    end
  end
  return dropped
end
