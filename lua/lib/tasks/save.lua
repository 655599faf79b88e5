-- What a task pool has to write besides what both kinds of shard write.
-- @include lib/tasks/lines
-- @include lib/shard/save

function STATE.write()
  LINES.write()
  LEDGER.write()
end
