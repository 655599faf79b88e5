-- The writes of a request shard besides those of every shard.
-- @include lib/requests/draws
-- @include lib/shard/save

function STATE.write(changes)
  DRAWS.write()
  for name, d in pairs(domains) do
    if d.born then
      RECORDS.note(changes, 'window_' .. name, d, RECORDS.pack(d, WINDOW_RECORD))
    end
  end
  if settings and settings.is_changed then
    settings.is_changed = false
    RECORDS.note(changes, 'settings', settings, RECORDS.pack_named(settings.values))
  end
end
