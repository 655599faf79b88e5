-- Write what this call changed: the last step before telling anybody.
local function save()
  for _, g in pairs(groups) do
    if g.dirty and not g.indexed_us then
      may_be_new('groups')
      may_be_new('idle_groups')
    end
  end
  write_groups()
  for name, d in pairs(domains) do
    if d.born then
      local key, stored = K['domain_' .. name], stored_domains[name]
      if not stored[1] then
        may_be_new('domain_' .. name)
      end
      local changes = {}
      if d.last_outcome ~= (stored[DOMAIN_NUMBERS + 1] or '') then
        changes[1], changes[2] = 'last_outcome', d.last_outcome
      end
      write_changes(key, DOMAIN_FIELDS, DOMAIN_NUMBERS, d, stored, changes)
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
  write_changes(K.meta, META_FIELDS, META_NUMBERS, meta, meta.stored, changes)
  keep_new_keys()
end
