-- The head of a shard's record, which joins and heartbeats write without knowing the rest.
-- @include lib/int
local HEAD = { pattern = '^(%d*)|?(%d*)|?(%d*)|?(%d*)|?(%d*)(.*)$' }

function HEAD.parse(text)
  local now, last, sequence, back, check, rest = string.match(text or '', HEAD.pattern)
  return { now_us = tonumber(now), last_us = tonumber(last), sequence = tonumber(sequence) or 0,
    back_us = tonumber(back) or 0, next_check_us = tonumber(check) or 0, rest = rest }
end

-- The head as it is at the server's present time; and the time before, nil at birth.
function HEAD.now(text)
  local head = HEAD.parse(text)
  local before_us = head.now_us
  head.now_us, head.last_us = shard_time(before_us, head.last_us)
  return head, before_us
end

function HEAD.text(head)
  return table.concat({ int(head.now_us), int(head.last_us), int(head.sequence), int(head.back_us),
    int(head.next_check_us) }, '|') .. head.rest
end
