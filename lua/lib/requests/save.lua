-- Write what this call changed: the last step before telling anybody.
local function save()
  write_groups()
  for name, d in pairs(domains) do
    if d.born then
      write_changes(K['domain_' .. name], DOMAIN_FIELDS, d, stored_domains[name])
    end
  end
  write_events(meta)
  write_changes(K.meta, META_FIELDS, meta, stored_meta)
end
