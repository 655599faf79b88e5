-- Tables that a call keeps for the next one of the same shard: tables of what it wrote as text, so that a text
-- that reads as it was written is not parsed again (docs/adr/0006). A call takes them when it begins and puts
-- them back with its last write, so one that fails midway leaves none. Only here is anything kept.
local KEPT = { most_shards = 256, shards = 0, of = {} }

-- Take the tables that the last call of this shard kept, by name.
function KEPT.take()
  local records = KEPT.of[K.meta]
  if not records then
    return {}
  end
  KEPT.of[K.meta], KEPT.shards = nil, KEPT.shards - 1
  return records
end

function KEPT.put(records)
  if KEPT.shards >= KEPT.most_shards then
    KEPT.of, KEPT.shards = {}, 0
  end
  KEPT.of[K.meta], KEPT.shards = records, KEPT.shards + 1
end
