-- The settings of a pool's admission, and the events of their changes.
-- @include lib/tasks/select
local SETTINGS = {} -- a table, as a script may have 200 locals

SETTINGS.defaults = { policy = 'strict', events = 'transitions' }

-- The settings in force, by name, but for limits, which are claims.
function SETTINGS.in_force()
  local settings = read_hash(K.config)
  settings.policy, settings.events = meta.policy, meta.events
  settings.reserve_after_us = int(meta.reserve_after_us > 0 and meta.reserve_after_us
    or RESERVE.usual_after_us)
  settings.max_losses = int(LOST.max())
  return settings
end

function SETTINGS.text(settings, name)
  local value = settings[name] or ''
  return value == '' and SETTINGS.defaults[name] or value
end

-- Emit the differences between two copies of the settings, in the order of their names. An empty text
-- stands for "none", and a space for the NUL within a name. Returns whether any differs.
function SETTINGS.emit_change(before, after)
  local seen, names, differs = {}, {}, false
  for _, settings in ipairs({ before, after }) do
    for name in pairs(settings) do
      if not seen[name] then
        seen[name] = true
        names[#names + 1] = name
      end
    end
  end
  table.sort(names)
  for i = 1, #names do
    local from, to = SETTINGS.text(before, names[i]), SETTINGS.text(after, names[i])
    if from ~= to then
      emit('pool_setting_changed', 'setting', (string.gsub(names[i], '%z', ' ')), 'from', from, 'to', to,
        'member_id', member_id)
      differs = true
    end
  end
  return differs
end
