-- The weighted fair queue over request groups (design 03, *Order*). Each domain has a line of the
-- groups that wait in it, scored by tag, equal tags by place; `fifo` holds each group's waiters in
-- order of arrival. Tag and place belong to the group and move in all its lines together.
-- @include lib/shard/suspects
-- @include lib/requests/leases
local QUEUE = { arrival_and_zeros = 18, -- of `fifo`: what stands between a group's name and an id
  lasting_us = 1000000 } -- a queue that drains sooner is no event: the last events show what moved a window
local ASIDE = {} -- waiters of suspects stand in `aside` and in no line, so that nobody waits behind them
local grants_left = 64
local aside_left = 200 -- waiters of suspects that step aside or come back in this call
local first_deadline_us -- of a waiter, or earlier: an early look does no harm

local function earlier(a, b)
  if b and (not a or b < a) then
    return b
  end
  return a
end

function ASIDE.name(member, id)
  return member .. '\0' .. id
end

function QUEUE.is_open(d)
  return meta.recovering_us == 0 and now_us >= d.blocked_until_us
    and d.in_flight < d.current_limit and d.in_flight < d.effective_max and meta.in_flight < meta.static_cap
    and (d.periods < MINUTE.enough or not MINUTE.is_used_up(d))
end

-- The id of a group's first waiter in a domain, nil for none, and whether another follows.
function QUEUE.first_of(domain_name, group_name)
  local prefix = domain_name .. '\0' .. group_name
  local first = redis.call('ZRANGE', K.fifo, '[' .. prefix .. '\0', '(' .. prefix .. '\1', 'BYLEX',
    'LIMIT', 0, 2)
  return first[1] and string.sub(first[1], #prefix + QUEUE.arrival_and_zeros + 1), first[2] ~= nil
end

-- Put a waiter into its group's part of `fifo`, and the group into its domain's line.
function QUEUE.join_line(id, waiter, d, g)
  if meta.lines == '' then
    EXPIRY.with_shard('fifo')
  end
  redis.call('ZADD', K.fifo, 0, ENTRIES.fifo_member(waiter, id))
  -- A group that waits stands in line already, unless it waits in another domain.
  if g.waiting == 0 or meta.lines ~= d.name .. ' ' then
    redis.call('ZADD', K['line_' .. d.name], real(g.tag), ENTRIES.line_member(g))
  end
  if not string.find(meta.lines, d.name, 1, true) then
    meta.lines = meta.lines .. d.name .. ' '
    EXPIRY.with_shard('line_' .. d.name)
  end
  g.waiting = g.waiting + 1
  GROUPS.touch(g)
end

-- Emit once that a domain has had waiters for longer than a moment.
function QUEUE.emit_formed(d)
  local since_us = tonumber(d.queued_since) or 0
  if since_us > 0 and now_us - since_us >= QUEUE.lasting_us then
    emit('request_queue_formed', 'domain', d.name, 'since_us', d.queued_since, 'waiters', int(d.waiters))
    d.queued_since = int(-since_us)
  end
end

-- Store a waiter and put it into its line; its group's tag and place are known.
function QUEUE.enter(id, waiter, d, g)
  redis.call('ZADD', K.held, 0, waiter.member .. '\0waiter\0' .. id)
  QUEUE.join_line(id, waiter, d, g)
  if meta.waiters == 0 then
    EXPIRY.with_shard('waiters')
  end
  if waiter.deadline_us then
    EXPIRY.with_shard('deadlines')
    redis.call('ZADD', K.deadlines, int(waiter.deadline_us), id)
    first_deadline_us = earlier(first_deadline_us, waiter.deadline_us)
  end
  d.waiters = d.waiters + 1
  meta.waiters = meta.waiters + 1
  if d.waiters == 1 then
    d.queued_since = int(now_us)
  else
    QUEUE.emit_formed(d)
  end
end

-- Store a waiter's record.
function QUEUE.write(id, waiter)
  redis.call('HSET', K.waiters, id, table.concat({ waiter.member, waiter.domain, waiter.group, waiter.arrival,
    waiter.deadline_us and int(waiter.deadline_us) or '', waiter.cost > 0 and int(waiter.cost) or '',
    waiter.since_us == now_us and now_text or int(waiter.since_us) }, '|'))
end

function QUEUE.add(id, member, d, g, cost, deadline_us)
  if g.waiting == 0 then
    GROUPS.enter_line(g)
  end
  local waiter = { member = member, domain = d.name, group = g.name, cost = cost, deadline_us = deadline_us,
    since_us = now_us, arrival = string.format('%016.0f', GROUPS.next_place()) }
  QUEUE.write(id, waiter)
  QUEUE.enter(id, waiter, d, g)
end

-- Put a waiter back that has waited before, by its age: its group stands where its first waiter came.
function QUEUE.put_back(id, waiter)
  local d, g = STATE.domain(waiter.domain), GROUPS.of(waiter.group)
  if not d.born then
    WINDOW.create(d, math.max(1, meta.static_cap))
  end
  local place = tonumber(waiter.arrival)
  if g.waiting == 0 then
    g.tag, g.place, g.dirty = g.tag or meta.virtual_time, place, true
  elseif place < g.place then
    local old_member = ENTRIES.line_member(g)
    g.place, g.dirty = place, true
    TURNS.move_in_lines(g, old_member)
  end
  QUEUE.enter(id, waiter, d, g)
end

-- Remove a waiter from its line, if it is there; `others` says whether more of its group wait in
-- its domain, where the caller has looked.
function QUEUE.leave_line(id, waiter, d, others)
  if redis.call('ZREM', K.fifo, ENTRIES.fifo_member(waiter, id)) == 0 then
    return false
  end
  local g = GROUPS.of(waiter.group)
  if g.waiting == 0 then
    DAMAGE.raise('groups') -- the record of one that waits is gone
  end
  g.waiting = g.waiting - 1
  GROUPS.touch(g)
  if others == nil then
    others = QUEUE.first_of(d.name, g.name) ~= nil
  end
  if not others then
    local line = K['line_' .. d.name]
    redis.call('ZREM', line, ENTRIES.line_member(g))
    if d.waiters == 0 or (meta.suspects > 0 and redis.call('EXISTS', line) == 0) then
      meta.lines = string.gsub(meta.lines, d.name .. ' ', '')
    end
  end
  return true
end

function QUEUE.remove(id, waiter, others)
  redis.call('HDEL', K.waiters, id)
  redis.call('ZREM', K.held, waiter.member .. '\0waiter\0' .. id)
  if waiter.deadline_us then
    redis.call('ZREM', K.deadlines, id)
  end
  local d = STATE.domain(waiter.domain)
  QUEUE.emit_formed(d)
  d.waiters = d.waiters - 1
  meta.waiters = meta.waiters - 1
  if not QUEUE.leave_line(id, waiter, d, others) then
    redis.call('ZREM', K.aside, ASIDE.name(waiter.member, id))
  end
  if d.waiters == 0 then
    local since_us = tonumber(d.queued_since) or 0
    if since_us < 0 then
      emit('request_queue_drained', 'domain', d.name, 'lasted_us', int(now_us + since_us))
    end
    d.queued_since = ''
  end
end

-- The waiter of a head, read when it is first asked for; then also its `id` and its `others`.
function QUEUE.waiter_of(head)
  if not head.waiter then
    head.id, head.others = QUEUE.first_of(head.domain.name, head.group)
    head.waiter = ENTRIES.parse_waiter(redis.call('HGET', K.waiters, head.id))
  end
  return head.waiter
end

-- The first waiters of the lines of open domains, in order: the smallest tag, then the earlier place;
-- of one group, who came first. `newcomer` is one more, behind equal tags.
function QUEUE.heads_in_order(newcomer)
  local heads = { newcomer }
  for name in STATE.waiting_domains() do
    local d = STATE.domain(name)
    if QUEUE.is_open(d) then
      local first = redis.call('ZRANGE', K['line_' .. name], 0, 0, 'WITHSCORES')
      heads[#heads + 1] = { domain = d, group = string.sub(first[1], 18), tag = tonumber(first[2]),
        place = first[1] }
    end
  end
  table.sort(heads, function(a, b)
    if a.tag ~= b.tag then
      return a.tag < b.tag
    elseif a.place ~= b.place then
      return a.place < b.place
    end
    return QUEUE.waiter_of(a).arrival < QUEUE.waiter_of(b).arrival
  end)
  return heads
end

-- The first waiter that lacks no quota. A budget that an earlier one lacks is kept: no later one draws
-- from it, and nobody of their domain passes them.
function QUEUE.first_with_quota(heads)
  if meta.budgets == 0 then
    return heads[1]
  end
  local reserved, held = {}, {}
  for i = 1, #heads do
    local head = heads[i]
    local may_go = not held[head.domain.name]
    for number, bucket in pairs(may_go and BUDGETS.all() or {}) do
      local draw = BUDGETS.draw_of(bucket, QUEUE.waiter_of(head).cost)
      if BUDGETS.ready_us(bucket, draw) > now_us then
        reserved[number], may_go = true, false
      elseif draw > 0 and reserved[number] then
        may_go = false
      end
    end
    if may_go then
      return head
    end
    held[head.domain.name] = true
  end
  return nil
end

-- Whether a new attempt may be granted, once all possible waiters were.
function QUEUE.may_go_at_once(d, g, cost)
  if not QUEUE.is_open(d) then
    return false
  elseif meta.budgets == 0 then
    return true
  elseif QUEUE.first_of(d.name, g.name) then
    return false
  end
  local newcomer = { domain = d, tag = g.tag or meta.virtual_time, place = '~',
    waiter = { cost = cost, arrival = '' } }
  return QUEUE.first_with_quota(QUEUE.heads_in_order(newcomer)) == newcomer
end

-- Grant leases to waiters while possible, at most 64 a call; the next call grants the rest.
function QUEUE.grant()
  while meta.waiters > 0 and grants_left > 0 do
    local head = ASIDE.first_present()
    if not head then
      return
    end
    local waiter, id = QUEUE.waiter_of(head), head.id
    QUEUE.remove(id, waiter, head.others)
    TURNS.take(GROUPS.of(head.group), TURNS.cost(waiter.cost))
    SHARD.notify(waiter.member, '["granted","' .. id .. '",'
      .. LEASES.grant(id, waiter.member, head.domain, head.group, waiter.cost) .. ']')
    grants_left = grants_left - 1
  end
end

-- Whether a waiter could still be granted now, had this call not used up its grants.
function QUEUE.has_more_to_grant()
  return grants_left == 0 and meta.waiters > 0 and QUEUE.first_with_quota(QUEUE.heads_in_order()) ~= nil
end

-- The first waiter that may be granted. Waiters of suspects at the lines' heads are set aside before.
function ASIDE.first_present()
  while true do
    local heads = QUEUE.heads_in_order()
    local absent
    for i = 1, meta.budgets > 0 and #heads or math.min(1, #heads) do
      if not absent and not SUSPECTS.is_present(QUEUE.waiter_of(heads[i]).member) then
        absent = heads[i]
      end
    end
    if not absent then
      return QUEUE.first_with_quota(heads)
    elseif aside_left == 0 then
      grants_left = 0 -- whoever stands behind it goes in the next call
      return nil
    end
    ASIDE.step(absent)
  end
end

function ASIDE.step(head)
  local id, waiter = head.id, QUEUE.waiter_of(head)
  aside_left = aside_left - 1
  QUEUE.leave_line(id, waiter, head.domain, head.others)
  EXPIRY.with_shard('aside')
  redis.call('ZADD', K.aside, 0, ASIDE.name(waiter.member, id))
end

-- Put the waiters of a member that was heard of again back where they stood; false where more are left.
function ASIDE.put_back(member)
  local names = redis.call('ZRANGE', K.aside, '[' .. member .. '\0', '(' .. member .. '\1', 'BYLEX',
    'LIMIT', 0, aside_left)
  for i = 1, #names do
    local id = split(names[i], '\0')[2]
    local waiter = ENTRIES.parse_waiter(redis.call('HGET', K.waiters, id))
    local g = GROUPS.of(waiter.group)
    if g.waiting == 0 then
      g.tag = g.tag or meta.virtual_time -- its place is the one that it had
    end
    redis.call('ZREM', K.aside, names[i])
    QUEUE.join_line(id, waiter, STATE.domain(waiter.domain), g)
  end
  aside_left = aside_left - #names
  return aside_left > 0
end
