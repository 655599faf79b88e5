-- Write what this call changed, besides other `changes` of `meta`, fields and values in turn: the last step
-- before telling anybody.
-- @include lib/leases
local function save(changes)
  LEASES.flush()
  for _, g in pairs(groups) do
    if g.dirty and not g.indexed_us then
      may_be_new('groups')
      may_be_new('idle_groups')
    end
  end
  write_groups()
  write_budgets()
  write_events(meta)
  for name, d in pairs(domains) do
    if d.born then
      RECORDS.note(changes, 'window_' .. name, d, RECORDS.pack(d, WINDOW_RECORD))
    end
  end
  if settings and settings.is_changed then
    settings.is_changed = false
    RECORDS.note(changes, 'settings', settings, RECORDS.pack_named(settings.values))
  end
  RECORDS.note(changes, 'record', meta, RECORDS.pack(meta, RECORD))
  SHARD.write(changes)
  keep_new_keys()
end
