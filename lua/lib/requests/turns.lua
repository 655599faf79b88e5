-- Turns of request groups, which may wait in the lines of several domains at once.
-- @include lib/shard/groups
-- @include lib/requests/state
-- @include lib/requests/entries
local TURNS = {}

-- The tag or place of a group that waits moved: it moves in every line that it stands in.
function TURNS.move_in_lines(g, old_member)
  local member = ENTRIES.line_member(g)
  for name in STATE.waiting_domains() do
    local line = K['line_' .. name]
    if name .. ' ' == meta.lines or redis.call('ZSCORE', line, old_member) then
      redis.call('ZADD', line, real(g.tag), member) -- first, so that the key goes on
      if member ~= old_member then
        redis.call('ZREM', line, old_member)
      end
    end
  end
end

function TURNS.cost(cost)
  return meta.token_fair > 0 and math.max(1, cost) or 1
end

function TURNS.take(g, cost)
  local old_member = g.waiting > 0 and ENTRIES.line_member(g)
  GROUPS.take_turn(g, cost)
  if old_member then
    TURNS.move_in_lines(g, old_member)
  end
end

-- Correct the cost of a turn by the usage; a forgotten group owes nothing.
function TURNS.settle(g, difference)
  if g.tag and difference ~= 0 then
    g.tag, g.got, g.dirty = g.tag + difference / g.weight, math.max(0, g.got + difference), true
    if g.waiting > 0 then
      TURNS.move_in_lines(g, ENTRIES.line_member(g))
    end
  end
end
