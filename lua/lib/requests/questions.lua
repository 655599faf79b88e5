-- The answers of a request shard to an operator's questions.
-- @include lib/requests/capture_text
-- @include lib/requests/capture_audit
-- @include lib/requests/queue
-- @include lib/requests/capture_explain
-- @include lib/shard/turns_taken
QUESTIONS.reads = { explain = EXPLAIN.shard, snapshot = CAPTURE.shard }
QUESTIONS.lease_columns = { { 'lease held the longest', 'lease_id' }, { 'domain', 'domain' }, { 'group', 'group' },
  { 'member', 'member_id' }, { 'held for', 'held_for_seconds', TEXT.span } }
QUESTIONS.held_columns = { { 'waiters', 'waiters' } }
QUESTIONS.waiter_columns = { { 'turn', 'turn' }, { 'group', 'group' }, { 'member', 'member_id' },
  { 'waiter', 'waiter_id' }, { 'waits for', 'waits_for_seconds', TEXT.span },
  { 'leaves in', 'leaves_in_seconds', TEXT.span } }
QUESTIONS.read_at_once = 10 -- waiters of a group

function QUESTIONS.lease_row(id, lease)
  return { lease_id = id, domain = lease.domain, group = lease.group, member_id = lease.member }
end

function QUESTIONS.add_held(row)
  row.waiters = QUESTIONS.count_under(K.held, row.member_id .. '\0waiter')
end

-- The last move of each window among the last events.
function QUESTIONS.add_moves(lines)
  local found, seen, rows = redis.call('XREVRANGE', K.events, '+', '-', 'COUNT', QUESTIONS.most_events), {}, {}
  for i = 1, #found do
    local e = QUESTIONS.fields_of(found[i])
    local is_move = e.kind == 'request_limit_increased' or e.kind == 'request_limit_decreased'
    if is_move and e.domain and not seen[e.domain] then
      seen[e.domain] = true
      rows[#rows + 1] = { e.domain, e.from or '?', e.to or '?', e.reason or '?',
        tonumber(e.at_us) and TEXT.age(now_us - tonumber(e.at_us)) .. ' ago' or '?' }
    end
  end
  TEXT.add_table(lines, { 'domain', 'moved last from', 'to', 'reason', 'when' }, rows, #rows)
end

function QUESTIONS.show(rows)
  local lines = REPORT.lines(string.match(K.meta, '{rq:(.-)}'), CAPTURE.shard(rows))
  if meta.generation then
    QUESTIONS.add_moves(lines)
  end
  return lines
end

-- The next waiter of a group in a domain, nil for none; they are read a few at a time.
function QUESTIONS.next_waiter(domain_name, line)
  if line.at > #line.ids then
    local prefix = domain_name .. '\0' .. line.group
    line.ids, line.at = redis.call('ZRANGE', K.fifo, line.after or '[' .. prefix .. '\0', '(' .. prefix .. '\1', 'BYLEX',
      'LIMIT', 0, QUESTIONS.read_at_once), 1
    if #line.ids == 0 then
      return nil
    end
    line.after = '(' .. line.ids[#line.ids]
  end
  return string.sub(line.ids[line.at], #domain_name + #line.group + 2 + QUEUE.arrival_and_zeros)
end

-- The lines of a domain's first groups, in order: each group's tag and place, and its first waiter.
function QUESTIONS.lines_of(domain_name, rows)
  local stored, list = CAPTURE.first_rows(K['line_' .. domain_name], rows), {}
  for i = 1, #stored, 2 do
    list[#list + 1] = { group = string.sub(stored[i], 18), tag = tonumber(stored[i + 1]),
      place = tonumber(string.sub(stored[i], 1, 16)), ids = {}, at = 1 }
  end
  return list
end

-- The line that has the next turn, nil if all are empty.
function QUESTIONS.first_line(domain_name, list)
  local first
  for i = 1, #list do
    local line = list[i]
    line.id = line.id or QUESTIONS.next_waiter(domain_name, line)
    if line.id and (not first or line.tag < first.tag or (line.tag == first.tag and line.place < first.place)) then
      first = line
    end
  end
  return first
end

-- A domain's waiters in the order of their grants, if no other waiter enters.
function QUESTIONS.add_waiters(lines, d, rows)
  local list, told, virtual_time, places = QUESTIONS.lines_of(d.name, rows), {}, meta.virtual_time, meta.places
  while #told < rows do
    local line = QUESTIONS.first_line(d.name, list)
    if not line then
      break
    end
    local waiter = ENTRIES.parse_waiter(redis.call('HGET', K.waiters, line.id) or '||||')
    told[#told + 1] = { turn = #told + 1, domain = d.name, group = line.group, member_id = waiter.member,
      waiter_id = line.id, waits_for_seconds = waiter.since_us and TEXT.in_seconds(now_us - waiter.since_us) or nil,
      leaves_in_seconds = waiter.deadline_us and TEXT.in_seconds(waiter.deadline_us - now_us) or nil }
    virtual_time, places = math.max(virtual_time, line.tag), places + 1
    line.tag, line.place = virtual_time + TURNS.cost(waiter.cost) / GROUPS.of(line.group).weight, places
    line.id, line.at = nil, line.at + 1
  end
  TEXT.add_rows(lines, 'waiter', QUESTIONS.waiter_columns, told, d.waiters)
end

-- The waiters in order, with their ages, and the state of the window.
function QUESTIONS.waiters(rows)
  STATE.load()
  if not meta.generation then
    return nil
  end
  local lines = {}
  for i = 1, #DOMAINS do
    local d = STATE.domain(DOMAINS[i])
    if d.waiters > 0 then
      TEXT.add_row(lines, 'domain', { domain = d.name, waiting = d.waiters, in_flight = d.in_flight,
        window = d.current_limit, outlook = WINDOW.outlook(d) })
      TEXT.add_text(lines, d.name .. ': ' .. int(d.waiters) .. ' wait, in flight ' .. int(d.in_flight) .. ' of '
        .. int(d.current_limit) .. ', ' .. WINDOW.outlook(d))
      QUESTIONS.add_waiters(lines, d, rows)
    end
  end
  local aside = redis.call('ZCARD', K.aside)
  if aside > 0 then
    TEXT.add_row(lines, 'aside', { waiting = aside })
    TEXT.add_text(lines, 'not in line, as nobody listens for their members: ' .. aside)
  end
  return #lines > 0 and lines or { 'nobody waits' }
end

-- The groups with their turns of the last minute against their weights.
function QUESTIONS.shares(rows)
  STATE.load()
  if not meta.generation then
    return nil
  end
  local lines, names = {}, {}
  for name in STATE.waiting_domains() do
    local line = CAPTURE.first_rows(K['line_' .. name], rows)
    for i = 1, #line, 2 do
      names[#names + 1] = string.sub(line[i], 18)
    end
  end
  TAKEN.add_table(lines, names, rows, meta.token_fair > 0 and 'tokens' or 'got')
  return lines
end
