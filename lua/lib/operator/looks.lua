-- The readers of each kind of shard: kind -> a function of KEYS and ARGV, which is the whole of its script `look`.
-- The library of an operator's functions has another text in this one's place (coordinator/scripts/operator_library.py).
local LOOKS = {} -- luacheck: ignore 241
