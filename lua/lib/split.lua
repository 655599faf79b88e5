-- The parts of a text between separators; an empty text has one part.
local function split(text, separator)
  local parts, n, from = {}, 0, 1
  while true do
    local at = string.find(text, separator, from, true)
    n = n + 1
    if not at then
      parts[n] = string.sub(text, from)
      return parts
    end
    parts[n] = string.sub(text, from, at - 1)
    from = at + 1
  end
end
