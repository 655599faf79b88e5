-- The keys that a call can make, beside those of a registration and of its reply; the others are
-- made by joining.
local KEYS_OF_LEASES = { 'leases', 'held', 'holds', 'groups', 'idle_groups', 'finished' }
local KEYS_OF_WAITERS = { 'waiters', 'fifo', 'deadlines', 'line_chat', 'line_embedding',
  'line_image', 'line_healthcheck' }

-- Write what this call changed: the last step before telling anybody.
local function save()
  write_groups()
  local born = {}
  for name, d in pairs(domains) do
    if d.born then
      if not stored_domains[name].current_limit then
        born[#born + 1] = 'domain_' .. name
      end
      write_changes(K['domain_' .. name], DOMAIN_FIELDS, d, stored_domains[name])
    end
  end
  write_events(meta)
  write_changes(K.meta, META_FIELDS, meta, stored_meta)
  keep_new_keys(KEYS_OF_LEASES)
  keep_new_keys(born)
  if meta.waiters > 0 then
    keep_new_keys(KEYS_OF_WAITERS)
  end
end
