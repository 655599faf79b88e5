-- The commands of the channels on which members are woken. On a cluster lib/sharded_channels stands in its place.
local CHANNELS = { publish = 'PUBLISH', count = 'NUMSUB', list = 'CHANNELS', on_cluster = false } -- luacheck: ignore 241
