-- A shard's time in this call, and the events that the call writes last.
-- @include lib/int
local EVENTS = { kept = 8192 } -- luacheck: ignore 241
local now_us = 0
local events = {}

local function emit(kind, ...)
  events[#events + 1] = { kind, ... }
end

function EVENTS.write(meta)
  for i = 1, #events do
    meta.sequence = meta.sequence + 1
    redis.call('XADD', K.events, 'MAXLEN', '~', EVENTS.kept, '*', 'sequence', int(meta.sequence),
      'at_us', int(now_us), 'kind', unpack(events[i]))
  end
end
