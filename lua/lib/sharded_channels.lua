-- The commands of the channels on which members are woken, on a cluster: a message goes to the node of the shard alone,
-- where its members listen (docs/adr/0037). It stands in the place of lib/channels.
local CHANNELS = { publish = 'SPUBLISH', count = 'SHARDNUMSUB', list = 'SHARDCHANNELS', on_cluster = true } -- luacheck: ignore 241
