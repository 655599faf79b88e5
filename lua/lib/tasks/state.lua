-- State of a task pool for the length of one call: read once, changed in memory, written once.
-- @include lib/shard/groups
-- @include lib/shard/leases
-- @include lib/tasks/ledger
local RECORD = { often = 12, numbers = 22, 'now_us', 'last_us', 'sequence', 'back_us', 'next_check_us',
  'recovering_us', 'virtual_time', 'places', 'queued', 'running', 'admissions', 'finished', 'delayed', 'parked',
  'reserve_after_us', 'first_since_us', 'suspects', 'max_losses', 'lost', 'unserved', 'suspect_tasks', 'limited',
  'state', 'policy', 'events', 'first_task', 'first_signature', 'draining', 'cooling' }
GROUPS.extra = { 'running', 'away', 'admitted_limit', 'head', 'signature', 'line', 'out', 'debt' }
local STATE = { fields = {} } -- nothing of `meta` is read besides what both kinds of shard read

function STATE.load()
  meta = SHARD.record(RECORD, STATE.fields)
  meta.cooled = nil
  if meta.recovering_us > 0 then
    STATE.make_readable()
  end
  LEDGER.load()
end

-- Called before anything is read of a pool that is being rebuilt; see lib/tasks/rebuild.
function STATE.make_readable() end

-- Emit an event of one task, if the pool's `events` are `full`.
function STATE.emit_task(...)
  if meta.events == 'full' then
    emit(...)
  end
end

function LEASES.parse(text)
  local member, task_id, group_name, signature, acquired_us, kind = string.match(text,
    '^([^|]*)|([^|]*)|([^|]*)|([^|]*)|([^|]*)|(.*)$')
  return { member = member, task_id = task_id, group = group_name, signature = signature,
    acquired_us = acquired_us, is_cell = kind == 'cell' }
end

function LEASES.packed(member, task_id, group_name, signature, acquired_us, is_cell)
  return table.concat({ member, task_id, group_name, signature, acquired_us, is_cell and 'cell' or '' }, '|')
end
