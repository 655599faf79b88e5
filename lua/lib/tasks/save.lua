-- The writes of a task pool besides those of every shard.
-- @include lib/tasks/lines
-- @include lib/shard/save

function STATE.write()
  LINES.write()
  LEDGER.write()
end
