-- Turns of request groups, which may wait in the lines of several domains at once.

-- The tag or place of a group that waits moved: it moves in every line that it stands in.
local function move_in_lines(g, old_member)
  local member = line_member(g)
  for name in waiting_domains() do
    local line = K['line_' .. name]
    if name .. ' ' == meta.lines or redis.call('ZSCORE', line, old_member) then
      redis.call('ZADD', line, real(g.tag), member) -- first, so that the key goes on
      if member ~= old_member then
        redis.call('ZREM', line, old_member)
      end
    end
  end
end

local function turn_cost(cost)
  return meta.token_fair > 0 and math.max(1, cost) or 1
end

local function advance(g, cost)
  local old_member = g.waiting > 0 and line_member(g)
  take_turn(g, cost)
  if old_member then
    move_in_lines(g, old_member)
  end
end

-- A turn cost more, or less, than was thought; a group that was forgotten meanwhile owes nothing.
local function settle_turn(g, difference)
  if g.tag and difference ~= 0 then
    g.tag, g.dirty = g.tag + difference / g.weight, true
    if g.waiting > 0 then
      move_in_lines(g, line_member(g))
    end
  end
end
