-- Pushes: a lone task goes to an idle member with its wake-up, which saves the member's ask
-- (docs/adr/0010). Pushes are numbered by member: of those that it has not seen when it asks next it is
-- told again, so that a lost message costs a recheck and no task.
-- A member's pushes: how many there were, how long its marks live, and which it may not have seen.
-- @include lib/tasks/leases
function PUSHES.of(member)
  local text = redis.call('HGET', K.pushes, member)
  if not text then
    return nil
  end
  local part = split(text, '|')
  return { count = tonumber(part[1]), in_progress_ms = part[2], text = text,
    unseen = part[3] ~= '' and split(part[3], ',') or {} }
end

function PUSHES.write(member, pushes)
  local text = int(pushes.count) .. '|' .. pushes.in_progress_ms .. '|' .. table.concat(pushes.unseen, ',')
  if text ~= pushes.text then
    EXPIRY.with_shard('pushes')
    redis.call('HSET', K.pushes, member, text)
  end
end

-- Forget what the caller has seen of its pushes, and return the others with their leases. It may have
-- seen more than is known here, where a replica that missed writes took over.
function PUSHES.unseen(seen, in_progress_ms)
  local pushes = PUSHES.of(member_id) or { count = 0, unseen = {} }
  pushes.count = math.max(pushes.count, tonumber(seen))
  while #pushes.unseen > pushes.count - tonumber(seen) do
    table.remove(pushes.unseen, 1)
  end
  pushes.in_progress_ms = in_progress_ms
  PUSHES.write(member_id, pushes)
  local list = {}
  for i = 1, #pushes.unseen do
    local lease_id = pushes.unseen[i]
    local text = LEASES.text(lease_id)
    if text then
      local lease = LEASES.parse(text)
      local id = lease.task_id
      local payload = not lease.is_cell and TASKS.payload_of(id)
      list[#list + 1] = '[' .. int(pushes.count - #pushes.unseen + i) .. ',' .. LEASES.packed_for_member(lease_id, id,
        TASKS.read(id), lease.acquired_us, TASKS.take_abort(id), TASKS.place_of(payload)) .. ']'
    end
  end
  return list
end

-- A payload for a message, or the mark that it must be fetched.
function PUSHES.payload_text(payload)
  if not payload or #payload > PUSHES.most_bytes or string.find(payload, '[\128-\255]') then
    return 'null'
  end
  return cjson.encode(payload)
end

-- Grant the only ready task to an idle member that takes pushes; false where it has to ask instead.
function PUSHES.push(head, member, slots)
  local pushes, id = PUSHES.of(member), GROUPS.of(head.group).head
  local has_payload = TASKS.read(id).run ~= '' or redis.call('EXISTS', TASKS.arq_key('job', id)) == 1
  if not pushes or not has_payload or redis.call('EXISTS', 'arq:abort') == 1 then
    return false
  end
  local lease = LEASES.grant(head, member, pushes.in_progress_ms)
  pushes.count = pushes.count + 1
  pushes.unseen[#pushes.unseen + 1] = lease.lease_id
  PUSHES.write(member, pushes)
  redis.call('ZADD', K.idle, int(slots - 1), member)
  SHARD.notify(member, '["task",' .. int(pushes.count) .. ',' .. LEASES.packed_for_member(lease.lease_id, id, lease.task,
    int(now_us), false, 0) .. ',' .. PUSHES.payload_text(lease.payload) .. ']')
  return true
end
