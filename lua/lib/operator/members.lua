-- Differences between the members of a server's shards: versions and settings.
-- @include lib/operator/fleet
local MEMBERS_ASKED = { most_members = 100, most_aliases = 200, most_events = 200 }

-- Count a member under a value; `counts` has how many there are by value.
function MEMBERS_ASKED.count(counts, value)
  counts[value] = (counts[value] or 0) + 1
end

-- The values of `counts` in order, each with its number of members; and how many values there are.
function MEMBERS_ASKED.summary(counts, unit)
  local values, parts = {}, {}
  for value in pairs(counts) do
    values[#values + 1] = value
  end
  table.sort(values)
  for i = 1, #values do
    parts[i] = values[i] .. unit .. ' (' .. counts[values[i]] .. (counts[values[i]] == 1 and ' member)' or ' members)')
  end
  return table.concat(parts, ', '), #values
end

-- Count versions and TTLs of a shard's members; returns the members.
function MEMBERS_ASKED.look(key, versions, ttls)
  local names, is_member = FLEET.read('ZRANGE', key .. 'members', 0, MEMBERS_ASKED.most_members - 1) or {}, {}
  for i = 1, #names do
    is_member[names[i]] = true
    local words = FLEET.read('HGET', key .. 'meta', 'member:' .. names[i])
    local interval_us = tonumber(FLEET.read('HGET', key .. 'intervals', names[i]) or nil)
    MEMBERS_ASKED.count(versions, words and string.match(words, '^%S+ %S+ %S+ (%S+)') or 'not known')
    if interval_us then
      MEMBERS_ASKED.count(ttls, string.format('%g', 3 * interval_us / 1000000))
    end
  end
  return is_member
end

-- Note aliases that members registered with several caps.
function MEMBERS_ASKED.look_at_caps(tag, key, differ)
  local stored, caps = FLEET.read('ZRANGE', key .. 'aliases', 0, MEMBERS_ASKED.most_aliases - 1, 'WITHSCORES') or {}, {}
  for i = 1, #stored, 2 do
    local alias = string.match(stored[i], '^[^%z]*%z(.*)$') or '?'
    caps[alias] = caps[alias] or {}
    MEMBERS_ASKED.count(caps[alias], stored[i + 1])
  end
  for alias, counts in pairs(caps) do
    local told, values = MEMBERS_ASKED.summary(counts, '')
    if values > 1 then
      differ[#differ + 1] = tag .. ': cap of alias ' .. alias .. ' is ' .. told
    end
  end
end

-- Note settings that present members overwrite in turn, by the shard's events; the last one is in force.
function MEMBERS_ASKED.look_at_settings(tag, key, is_member, differ)
  local found, by_setting = FLEET.read('XREVRANGE', key .. 'events', '+', '-', 'COUNT', MEMBERS_ASKED.most_events) or {}, {}
  for i = 1, #found do
    local e, flat = {}, found[i][2]
    for j = 1, #flat, 2 do
      e[flat[j]] = flat[j + 1]
    end
    if e.kind == 'request_setting_changed' and is_member[e.member_id or ''] and e.setting then
      local set = by_setting[e.setting] or { of = {}, counts = {} }
      by_setting[e.setting] = set
      if not set.of[e.member_id] then
        set.of[e.member_id] = true
        MEMBERS_ASKED.count(set.counts, (e.to or '') ~= '' and e.to or 'none')
      end
    end
  end
  for setting, set in pairs(by_setting) do
    local told, values = MEMBERS_ASKED.summary(set.counts, '')
    if values > 1 then
      differ[#differ + 1] = tag .. ': ' .. setting .. ' was set to ' .. told
    end
  end
end

-- The checks, each as {state, name, said, remedy}.
function MEMBERS_ASKED.checks()
  local tags, versions, ttls, differ = FLEET.tags() or {}, {}, {}, {}
  for i = 1, math.min(#tags, FLEET.most_shards) do
    local key = 'fb:{' .. tags[i] .. '}:'
    local is_member = MEMBERS_ASKED.look(key, versions, ttls)
    if string.sub(tags[i], 1, 3) == 'rq:' then
      MEMBERS_ASKED.look_at_caps(tags[i], key, differ)
      MEMBERS_ASKED.look_at_settings(tags[i], key, is_member, differ)
    end
  end
  local told, found = MEMBERS_ASKED.summary(ttls, ' s')
  if found > 1 then
    table.insert(differ, 1, 'TTLs are ' .. told)
  end
  table.sort(differ)
  local versions_told, versions_found = MEMBERS_ASKED.summary(versions, '')
  return {
    { 'ok', 'members', versions_found > 0 and 'version ' .. versions_told or 'none', '' },
    { #differ > 0 and 'wrong' or 'ok', 'settings', #differ > 0 and table.concat(differ, '; ')
      or 'members were started with the same ones, as far as the shards tell',
      'start all members alike: the smallest cap and the last tuning are in force' },
  }
end
