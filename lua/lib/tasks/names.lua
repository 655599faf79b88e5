-- arq's keys and the pool's queue bear a task's id as its user wrote it, as arq's Job asks for it; in
-- every other place it stands with escapes, so that it can break no packed value.
local function name_of(id)
  if not string.find(id, '%', 1, true) then
    return id
  end
  return (string.gsub(id, '%%(%x%x)', function(hex) return string.char(tonumber(hex, 16)) end))
end

local function arq_key(kind, id)
  return 'arq:' .. kind .. ':' .. name_of(id)
end
