-- A shard's time in this call, and the events that the call writes last.
-- @include lib/int
local EVENTS = { kept = 8192 } -- luacheck: ignore 241
local now_us = 0
local events, event_count = {}, 0

local function emit(kind, ...)
  event_count = event_count + 1
  events[event_count] = { kind, ... }
end

function EVENTS.write(meta)
  for i = 1, event_count do
    meta.sequence = meta.sequence + 1
    redis.call('XADD', K.events, 'MAXLEN', '~', EVENTS.kept, '*', 'sequence', int(meta.sequence),
      'at_us', int(now_us), 'kind', unpack(events[i]))
  end
end
