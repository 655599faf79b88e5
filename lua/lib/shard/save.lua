-- The last step of a call before its notices are published.
-- @include lib/shard/leases
-- @include lib/shard/groups

-- Write what this call changed, besides other `changes` of `meta`, fields and values in turn. Its kind of shard
-- has `STATE.write`, which writes what it alone has and adds its changes of `meta`.
function SHARD.save(changes)
  LEASES.flush()
  GROUPS.write()
  STATE.write(changes)
  EVENTS.write(meta)
  RECORDS.note(changes, 'record', meta, RECORDS.pack(meta, RECORD))
  SHARD.write(changes)
  EXPIRY.write()
end
