-- The end of a member's statement in a rebuild: it lists the leases and waiters that the shard knows.
-- @include lib/shard/operations
-- @include lib/shard/rebuild
-- The caller's leases and waiters in the shard, from behind an entry "kind/id" on. The last part ends the
-- caller's statement: the caller takes or releases the entries that it did not state.
function OPERATIONS.inventory(after)
  local listed = 200 -- ids that one call lists
  LEASES.flush()
  local kind, id = string.match(after, '^(%a+)/(.*)$')
  local first = kind and '(' .. caller .. '\0' .. kind .. '\0' .. id or '[' .. caller .. '\0lease'
  local entries = redis.call('ZRANGE', K.held, first, '(' .. caller .. '\1', 'BYLEX', 'LIMIT', 0, listed)
  local ids, last = {}, ''
  for i = 1, #entries do
    local part = split(entries[i], '\0')
    ids[i], last = '"' .. part[3] .. '"', part[2] .. '/' .. part[3]
  end
  if #entries < listed then
    last = ''
    REBUILD.note_stated(caller)
  end
  return '["inventory",[' .. table.concat(ids, ',') .. '],"' .. last .. '"]'
end
FOR_MEMBERS.inventory = true
