-- Write what this call changed: the last step before telling anybody.
-- @include lib/leases
local function save()
  for _, g in pairs(groups) do
    if g.dirty and not g.indexed_us then
      may_be_new('groups')
      may_be_new('idle_groups')
    end
  end
  LEASES.flush()
  write_groups()
  write_lines()
  for resource, amount in pairs(ledger) do
    if tonumber(stored_ledger[resource]) ~= amount then
      may_be_new('ledger')
      redis.call('HSET', K.ledger, resource, int(amount))
    end
  end
  write_events(meta)
  local changes = {}
  for i = META_NUMBERS + 1, #META_FIELDS do
    local name = META_FIELDS[i]
    if meta[name] ~= (stored_meta[i] or '') then
      changes[#changes + 1] = name
      changes[#changes + 1] = meta[name]
    end
  end
  add_changes(META_FIELDS, META_NUMBERS, meta, stored_meta, changes)
  if #changes > 0 then
    redis.call('HSET', K.meta, unpack(changes))
  end
end
