-- Write what this call changed, besides other `changes` of `meta`, fields and values in turn: the last step
-- before telling anybody.
-- @include lib/leases
local function save(changes)
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
  RECORDS.note(changes, 'record', meta, RECORDS.pack(meta, RECORD))
  SHARD.write(changes)
  keep_new_keys()
end
