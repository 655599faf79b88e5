-- The pool's part of a rebuild: a pool that lost its books begins empty, but for its limits and its members.
-- @include lib/shard/damage
-- @include lib/shard/rebuild
-- @include lib/tasks/state
function STATE.reindex()
  if meta.places > 0 then
    return -- the books are there
  end
  local kept = { meta = true, claims = true, limits = true, config = true, members = true, checks = true,
    intervals = true, awaited = true, events = true, finished = true }
  for name, key in pairs(K) do
    if not kept[name] then
      redis.call('UNLINK', key)
    end
  end
  LEDGER.load()
end

function STATE.open() end
