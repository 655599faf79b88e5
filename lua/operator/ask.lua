-- An operator's question about the shards of this server, answered in lines for people.
--
-- KEYS
--   named     string  any key of the shard that is asked about; may be left out
-- ARGV
--   topic     string  shards, show, who, waiters, shares, events, audit, doctor, or
--                     members: of doctor what it says of members, as JSON
--   shard     string  the shard that is asked about, as `shards` lists it, where no key names one; "" or left out for all
--   most_rows integer how many rows of each list, 1..100; left out for 20 of one shard, 5 of each, 100 of shards
-- Reply
--   array of lines of at most 100 columns; of members JSON [[state, name, said, remedy], ...]
-- Errors
--   none: what cannot be read is told in its place
-- Cost
--   of one shard as its script look; of all as much for each of 100 shards, of an audit 100,000 entries in all
-- Invariant
--   changes nothing
-- @bind
-- @include lib/operator/fleet
-- @include lib/operator/doctor

local count = tonumber(most_rows)
count = count and math.max(1, math.min(FLEET.most_rows, math.floor(count)))
if topic == 'shards' then
  return FLEET.list(count or FLEET.most_rows)
elseif topic == 'doctor' then
  return DOCTOR.lines()
elseif topic == 'members' then
  return cjson.encode(MEMBERS_ASKED.checks())
end
local shard_named = K.named or shard or ''
return FLEET.ask(topic, shard_named == FLEET.index and '' or shard_named, count)
