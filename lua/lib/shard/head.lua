-- The head of a shard's record, which joins and heartbeats write without knowing the rest.
-- @include lib/int
-- @include lib/time
-- @include lib/shard/expiry
-- @include lib/shard/watch
local HEAD = { pattern = '^(%d*)|?(%d*)|?(%d*)|?(%d*)|?(%d*)|?(%d*)(.*)$' }

-- The head of a record at the present time, that a member with a TTL is heard of; `before_us` is nil where the
-- record is missing or cannot be read. Where the record was written by another clock, no time has passed since: how
-- much it was cannot be known.
function HEAD.now(text, life_us, by_other_clock)
  local now, last, sequence, back, check, recovering, rest = string.match(text or '', HEAD.pattern)
  local before_us = tonumber(now)
  local head = { before_us = before_us, sequence = tonumber(sequence) or 0, back_us = tonumber(back) or 0,
    next_check_us = tonumber(check) or 0, recovering_us = tonumber(recovering) or 0, rest = before_us and rest }
  head.now_us, head.last_us = shard_time(before_us, not by_other_clock and last)
  if WATCH.was_away(head.now_us - (before_us or head.now_us), life_us / 3) then
    head.back_us = head.now_us
  end
  return head
end

function HEAD.write(head)
  redis.call('HSET', K.meta, 'record', table.concat({ int(head.now_us), int(head.last_us), int(head.sequence),
    int(head.back_us), int(head.next_check_us), int(head.recovering_us) }, '|') .. (head.rest or ''))
end

-- Note that a member was heard of, and renew the life of its shard's keys.
function HEAD.keep(head, member, life_us, kept_ms)
  WATCH.begin(head, member, life_us)
  HEAD.write(head)
  EXPIRY.renew_all(kept_ms)
end
