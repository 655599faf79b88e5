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
  for name, d in pairs(domains) do
    if d.born then
      local key, stored, changes = K['domain_' .. name], d.stored, {}
      if not stored.admission[1] then
        may_be_new('domain_' .. name)
      end
      if stored.outcome and d.last_outcome ~= (stored.outcome[PART_NUMBERS.outcome + 1] or '') then
        changes[1], changes[2] = 'last_outcome', d.last_outcome
      end
      for part, values in pairs(stored) do
        add_changes(DOMAIN_PARTS[part], PART_NUMBERS[part], d, values, changes)
      end
      if #changes > 0 then
        redis.call('HSET', key, unpack(changes))
      end
      for outcome, n in pairs(d.ended) do
        redis.call('HINCRBY', key, outcome, n)
      end
    end
  end
  write_budgets()
  write_events(meta)
  local changes = {}
  if meta.lines ~= (meta.stored[META_NUMBERS + 3] or '') then
    changes[1], changes[2] = 'lines', meta.lines
  end
  add_changes(META_FIELDS, META_NUMBERS, meta, meta.stored, changes)
  if #changes > 0 then
    redis.call('HSET', K.meta, unpack(changes))
  end
  keep_new_keys()
end
