-- The checks of a server's health, from its INFO and its shards.
-- @include lib/operator/members
local DOCTOR = { nearly_full = 0.9, slow_us = 20000, clock_us = 1000000 }

-- The fields of some sections of INFO, "" of those that the server hides.
function DOCTOR.info()
  local fields = {}
  for _, section in ipairs({ 'server', 'memory', 'persistence', 'replication', 'stats', 'clients', 'latencystats' }) do
    local text = FLEET.read('INFO', section)
    for name, value in string.gmatch(text or '', '([%w_|.-]+):([^\r\n]*)') do
      fields[name] = value
    end
  end
  return fields
end

function DOCTOR.add(lines, state, name, said, remedy)
  local indent = string.rep(' ', 20)
  local first = state .. string.rep(' ', 7 - #state) .. name .. string.rep(' ', 13 - #name)
  TEXT.add_row(lines, 'check', { name = name, state = state, says = said,
    remedy = state == 'wrong' and remedy or cjson.null })
  TEXT.add_text(lines, first .. said)
  if state == 'wrong' then
    TEXT.add_text(lines, indent .. remedy)
  end
end

function DOCTOR.add_role(lines, info)
  DOCTOR.add(lines, 'ok', 'version', (info.valkey_version and 'Valkey ' .. info.valkey_version
    or 'Redis ' .. (info.redis_version or '?')) .. ', up ' .. TEXT.age((tonumber(info.uptime_in_seconds) or 0) * 1e6))
  if info.role == 'master' then
    DOCTOR.add(lines, 'ok', 'role', 'primary with ' .. (info.connected_slaves or '0') .. ' replicas')
  elseif info.role then
    DOCTOR.add(lines, 'wrong', 'role', 'replica of ' .. (info.master_host or '?') .. ', which takes no writes',
      'ask the primary')
  else
    DOCTOR.add(lines, 'hidden', 'role', 'INFO has no role')
  end
end

function DOCTOR.add_policy(lines, info)
  local policy = info.maxmemory_policy
  if not policy then
    DOCTOR.add(lines, 'hidden', 'policy', 'INFO has no maxmemory_policy')
  elseif policy ~= 'noeviction' then
    DOCTOR.add(lines, 'wrong', 'policy', 'maxmemory-policy is ' .. policy .. ', so a server that is full drops leases and windows',
      'set maxmemory-policy to noeviction; a server that is full then refuses new work')
  else
    DOCTOR.add(lines, 'ok', 'policy', policy)
  end
  local evicted = tonumber(info.evicted_keys) or 0
  if evicted > 0 then
    DOCTOR.add(lines, 'wrong', 'evictions', int(evicted) .. ' keys since it started', 'raise maxmemory, set noeviction, and ask fb_audit')
  end
end

-- A server persists if it has an append-only file, has written or loaded a snapshot since it started, or has a replica.
function DOCTOR.add_persistence(lines, info)
  if not info.aof_enabled then
    return DOCTOR.add(lines, 'hidden', 'persistence', 'INFO has no aof_enabled')
  elseif (info.aof_last_write_status or 'ok') ~= 'ok' or (info.rdb_last_bgsave_status or 'ok') ~= 'ok' then
    return DOCTOR.add(lines, 'wrong', 'persistence', 'its last write to the disk failed, and it may refuse writes',
      'see its log, and free its disk')
  end
  local saves, loaded = tonumber(info.rdb_saves) or 0, tonumber(info.rdb_last_load_keys_loaded) or 0
  if info.aof_enabled == '1' then
    DOCTOR.add(lines, 'ok', 'persistence', 'append-only file')
  elseif saves + loaded + (tonumber(info.connected_slaves) or 0) > 0 then
    DOCTOR.add(lines, 'ok', 'persistence', int(saves) .. ' snapshots since it started, no append-only file')
  else
    DOCTOR.add(lines, 'wrong', 'persistence', 'no append-only file, no replica, and no snapshot since it started',
      'set appendonly to yes: a restart would lose leases, tasks and windows')
  end
end

function DOCTOR.add_memory(lines, info)
  local used, most = tonumber(info.used_memory) or 0, tonumber(info.maxmemory) or 0
  local said = string.format('%.1f MB used, ', used / 1e6)
    .. (most > 0 and string.format('maxmemory %.1f MB', most / 1e6) or 'no bound')
  local is_full = most > 0 and used >= DOCTOR.nearly_full * most
  DOCTOR.add(lines, is_full and 'wrong' or 'ok', 'memory', said,
    'raise maxmemory, or free some: a full server refuses new work')
  local refused = tonumber(info.rejected_connections) or 0
  DOCTOR.add(lines, refused > 0 and 'wrong' or 'ok', 'connections', (info.connected_clients or '?') .. ' of '
    .. (info.maxclients or '?') .. ', refused ' .. int(refused), 'raise maxclients: refused members do not start')
end

-- How long calls of functions took, half of them and 99 of 100: of all calls since the server started.
function DOCTOR.add_latency(lines, info)
  local half, most = string.match(info.latency_percentiles_usec_fcall or '', 'p50=([%d.]+),p99=([%d.]+)')
  if not half then
    return DOCTOR.add(lines, 'hidden', 'latency', 'INFO has no latency of fcall')
  end
  DOCTOR.add(lines, tonumber(most) > DOCTOR.slow_us and 'wrong' or 'ok', 'latency', string.format(
    'a call takes %.2f ms, 99 of 100 at most %.2f ms, of all since the server started %s ago', half / 1000, most / 1000,
    TEXT.age((tonumber(info.uptime_in_seconds) or 0) * 1e6)),
    'see SLOWLOG GET and LATENCY DOCTOR: something holds the server up')
end

-- The checks of the shards: a clock that went back, damage, and differences between members.
function DOCTOR.add_shards(lines)
  local tags = FLEET.tags() or {}
  local read_us, latest_us, damaged, count = server_time_us(), 0, {}, math.min(#tags, FLEET.most_shards)
  for i = 1, count do
    local state = FLEET.row(tags[i], read_us).state
    local found = FLEET.read('HGET', 'fb:{' .. tags[i] .. '}:meta', 'record')
    latest_us = math.max(latest_us, tonumber(string.match(found or '', '^%d+|(%d+)')) or 0)
    if state == 'damaged' or state == 'rebuilding' then
      damaged[#damaged + 1] = tags[i] .. ' is ' .. state
    end
  end
  local ahead_us = latest_us - read_us
  DOCTOR.add(lines, ahead_us > DOCTOR.clock_us and 'wrong' or 'ok', 'clock', ahead_us > 0 and 'it went back by '
    .. TEXT.age(ahead_us) .. ' since a call' or 'no call read a later time',
    'set it by NTP: a step back costs no lease, and a leap forward expires everybody')
  DOCTOR.add(lines, #damaged > 0 and 'wrong' or 'ok', 'shards', #damaged > 0 and table.concat(damaged, ', ')
    or int(#tags) .. (#tags > count and ', the first ' .. int(count) .. ' looked at' or ''),
    'members rebuild a shard when they next call; where none runs, `forebay reset --rebuild` does')
end

function DOCTOR.lines()
  local lines, info = {}, DOCTOR.info()
  DOCTOR.add_role(lines, info)
  DOCTOR.add_policy(lines, info)
  DOCTOR.add_persistence(lines, info)
  DOCTOR.add_memory(lines, info)
  DOCTOR.add_latency(lines, info)
  DOCTOR.add_shards(lines)
  local checks = MEMBERS_ASKED.checks()
  for i = 1, #checks do
    DOCTOR.add(lines, unpack(checks[i]))
  end
  return lines
end
