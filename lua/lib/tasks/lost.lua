-- Tasks that were lost with a member that died (design 04, *Losses*). Each is a suspect until it ends once: it
-- waits in `suspect_tasks`, by arrival, where it holds up nobody of its group, and a member runs one at a
-- time. One whose next loss is its last runs with nothing beside it, so that what is blamed is to blame.
-- @include lib/shard/leases
-- @include lib/tasks/queue
function LOST.max()
  return meta.max_losses > 0 and meta.max_losses or LOST.usual_max
end

-- Whether a rebuild found that a task's payload is gone; see lib/tasks/restore.
function LOST.has_no_payload(task)
  return string.sub(task.fn, 1, #LOST.no_payload) == LOST.no_payload
end

function LOST.runs_alone(losses)
  return losses >= LOST.max() - 1 and losses < LOST.max()
end

-- The first of those that wait, as ids.
function LOST.first()
  if meta.suspect_tasks == 0 then
    return {}
  end
  local ids = redis.call('ZRANGE', K.suspect_tasks, 0, LOST.looked_at - 1)
  for i = 1, #ids do
    ids[i] = split(ids[i], '\0')[2]
  end
  return ids
end

function LOST.holds_any(member)
  return #LEASES.held_by(member .. '\0lease', 1) > 0
end

-- The suspect that a member runs, as "alone" or "beside", space and its lease; nil for none.
function LOST.watched(member)
  return meta.lost > 0 and redis.call('HGET', K.watched, member) or nil
end

-- Whether a member takes no task: it runs a suspect alone, or drains for one.
function LOST.takes_nothing(member)
  if meta.lost == 0 then
    return false
  end
  local text = LOST.watched(member)
  return text and string.sub(text, 1, 6) == 'alone '
    or (meta.draining == member and LOST.holds_any(member))
end

function LOST.may_take(member, task)
  if not CLASSES.serves(member, task.fn) then
    return false
  elseif task.losses >= LOST.max() then
    return true -- it is ended, and takes no slot
  end
  return not LOST.watched(member) and not (LOST.runs_alone(task.losses) and LOST.holds_any(member))
end

-- Let the caller drain if a suspect waits to run alone and no other member drains.
function LOST.note_draining(member)
  if meta.lost == 0 and meta.draining == '' then
    return
  end
  local waits, ids = false, LOST.first()
  for i = 1, #ids do
    local task = TASKS.named(ids[i])
    waits = waits or (LOST.runs_alone(task.losses) and CLASSES.serves(member, task.fn))
  end
  if not waits then
    meta.draining = meta.draining ~= member and meta.draining or ''
  elseif meta.draining == '' and LOST.holds_any(member) and not LOST.watched(member) then
    meta.draining = member
  end
end

-- Note which suspect a member runs.
function LOST.watch(member, lease_id, losses)
  if losses > 0 then
    local is_alone = LOST.runs_alone(losses)
    EXPIRY.with_shard('watched')
    redis.call('HSET', K.watched, member, (is_alone and 'alone ' or 'beside ') .. lease_id)
    if is_alone and meta.draining == member then
      meta.draining = ''
    end
  end
end

function LOST.unwatch(member, lease_id)
  local text = LOST.watched(member)
  if text and string.match(text, ' (.*)') == lease_id then
    redis.call('HDEL', K.watched, member)
  end
end

-- Count a loss of a task with a member.
function LOST.count(id, task, member)
  task.losses = task.losses + 1
  EXPIRY.with_shard('losses')
  local names = redis.call('HGET', K.losses, id)
  if not names then
    meta.lost = meta.lost + 1
  end
  redis.call('HSET', K.losses, id, names and names .. ',' .. member or member)
end

-- Forget the losses of a task that ended once.
function LOST.forget(id, task)
  if task.losses > 0 then
    task.losses = 0
    meta.lost = meta.lost - redis.call('HDEL', K.losses, id)
  end
end
