-- Write what this call changed: the last step before telling anybody.
local function save()
  write_groups()
  for resource, amount in pairs(ledger) do
    if tonumber(stored_ledger[resource]) ~= amount then
      redis.call('HSET', K.ledger, resource, int(amount))
    end
  end
  write_events(meta)
  write_changes(K.meta, META_FIELDS, META_NUMBERS, meta, stored_meta, {})
end
