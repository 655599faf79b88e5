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
      if not stored_domains[name].current_limit then
        may_be_new('domain_' .. name)
      end
      write_changes(K['domain_' .. name], DOMAIN_FIELDS, d, stored_domains[name])
    end
  end
  write_events(meta)
  write_changes(K.meta, META_FIELDS, meta, stored_meta)
  keep_new_keys()
end
