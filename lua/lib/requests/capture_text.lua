-- A capture as lines for people. Names stand encoded as in the keys, so none can disturb a terminal.
-- @include lib/table_lines
-- @include lib/requests/capture
local REPORT = {}

-- The rows that `row_of` returns for the domains in use, without nil.
function REPORT.rows(c, row_of)
  local rows = {}
  for i = 1, #DOMAINS do
    local d = c.domains[DOMAINS[i]]
    rows[#rows + 1] = d.is_used and row_of(DOMAINS[i], d) or nil
  end
  return rows
end

function REPORT.add_title(lines, name, c)
  TEXT.add_parts(lines, { name, 'generation ' .. c.generation,
    'clock ' .. string.format('%.6f', tonumber(c.captured_us) / 1000000), 'sequence ' .. c.sequence,
    'virtual time ' .. string.format('%.6g', c.virtual_time) }, '  ')
  TEXT.add_text(lines, 'static cap ' .. c.static_cap .. ', override ' .. TEXT.or_dash(c.override_cap)
    .. ', in flight ' .. c.in_flight .. ', leases ' .. c.leases .. ', waiters ' .. c.waiters
    .. ', members ' .. c.member_count)
  TEXT.add_text(lines, 'overdue: members ' .. c.overdue_members .. ', leases ' .. c.overdue_leases
    .. ', holds ' .. c.overdue_holds)
end

function REPORT.add_windows(lines, c)
  local rows = REPORT.rows(c, function(name, d)
    return { name, d.current_limit, d.effective_max, d.in_flight_count, d.waiters,
      d.cooldown_us == '0' and '-' or TEXT.age(d.cooldown_us), TEXT.or_dash(d.rate_limit_ceiling), d.cuts,
      d.success_streak, d.consecutive_rate_limits, TEXT.or_dash(d.last_outcome) }
  end)
  TEXT.add_table(lines, { 'domain', 'window', 'effective max', 'in flight', 'waiters', 'cooldown',
    'ceiling', 'cuts', 'streak', 'rate limits in a row', 'last outcome' }, rows, #rows)
end

-- The next move of each window.
function REPORT.add_outlooks(lines, c)
  local rows = REPORT.rows(c, function(name, d) return { name, d.algorithm, d.outlook } end)
  TEXT.add_table(lines, { 'domain', 'rule', 'what comes next' }, rows, #rows)
end

-- Learned budgets by the minute, which providers do not publish.
function REPORT.add_minutes(lines, c)
  local rows = REPORT.rows(c, function(name, d)
    local m = d.minute
    return m.budget > 0 and { name, m.budget, m.served,
      TEXT.age(math.max(0, tonumber(m.ends_us) - tonumber(c.captured_us))), m.periods }
  end)
  TEXT.add_table(lines, { 'domain', 'served in a minute', 'in this one', 'ends in', 'minutes alike' },
    rows, #rows)
end

-- The learned factors of token estimates.
function REPORT.add_factors(lines, c)
  local rows = REPORT.rows(c, function(name, d)
    return d.token_factor ~= 1 and { name, string.format('%.2f', d.token_factor) }
  end)
  TEXT.add_table(lines, { 'domain', 'input tokens to an estimated one' }, rows, #rows)
end

function REPORT.add_budgets(lines, c)
  local rows = {}
  for i = 1, #c.budgets do
    local b = c.budgets[i]
    rows[i] = { b.budget, b.limit, b.burst, string.format('%.1f', tonumber(b.level)),
      TEXT.or_dash(b.registered), TEXT.or_dash(b.learned) }
  end
  TEXT.add_table(lines, { 'budget', 'limit', 'burst', 'left', 'registered', 'learned' }, rows, #rows)
end

function REPORT.add_counters(lines, c)
  local rows = REPORT.rows(c, function(name, d)
    local row = { name, d.granted }
    for i = 1, #STATE.outcomes do
      row[2 + i] = d.outcomes[STATE.outcomes[i]]
    end
    return row
  end)
  TEXT.add_table(lines, { 'domain', 'granted', unpack(STATE.outcomes) }, rows, #rows)
end

function REPORT.add_groups(lines, c)
  for i = 1, #DOMAINS do
    local d, rows = c.domains[DOMAINS[i]], {}
    for j = 1, #d.waiting_groups do
      local g = d.waiting_groups[j]
      rows[j] = { g.group, g.weight, string.format('%.6g', g.tag), g.waiting }
    end
    TEXT.add_table(lines, { 'group waiting for ' .. DOMAINS[i], 'weight', 'tag', 'waiting' }, rows,
      d.waiting_group_count)
  end
end

function REPORT.add_members(lines, c)
  local rows, processes = {}, {}
  for i = 1, #c.members do
    local m = c.members[i]
    processes[i] = TEXT.process(m.member_id, m.process, tonumber(c.captured_us))
    local left = tonumber(m.expires_in_us)
    rows[i] = { m.member_id, TEXT.expires_in(left),
      m.lease_count, m.waiters }
  end
  TEXT.add_table(lines, { 'member', 'expires in', 'leases', 'waiters' }, rows, c.member_count)
  TEXT.add_table(lines, TEXT.process_columns, processes, c.member_count)
end

function REPORT.add_registrations(lines, c)
  local rows = {}
  for i = 1, #c.registrations do
    local r = c.registrations[i]
    rows[i] = { r.alias, r.cap, r.member_id }
  end
  TEXT.add_table(lines, { 'alias', 'cap', 'member' }, rows, c.registration_count)
end

function REPORT.lines(name, c)
  if not c.generation then
    return TEXT.unused(name, 'shard')
  end
  local lines = {}
  REPORT.add_title(lines, name, c)
  REPORT.add_windows(lines, c)
  REPORT.add_outlooks(lines, c)
  REPORT.add_minutes(lines, c)
  REPORT.add_factors(lines, c)
  REPORT.add_budgets(lines, c)
  REPORT.add_counters(lines, c)
  REPORT.add_groups(lines, c)
  REPORT.add_members(lines, c)
  REPORT.add_registrations(lines, c)
  return lines
end
