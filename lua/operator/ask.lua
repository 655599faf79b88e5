-- An operator's question about the shards of this server, answered in lines for people.
--
-- KEYS
--   named     string  any key of the shard that is asked about; may be left out
-- ARGV
--   topic     string  shards, show, who, members, waiters, shares, events, audit, doctor, or
--                     doctor_members: of doctor what it says of members, as JSON, or read: for programs that may
--                     evaluate no script
--   shard     string  the shard that is asked about, as `shards` lists it, where no key names one; "" or left out for all
--   most_rows integer how many rows of each list, 1..100; left out for 20 of one shard, 5 of each, 100 of shards; it may stand
--                     in the place of `shard`
--   form      string  lines, rows, or both; left out for lines
--   most_columns integer most columns of a line, 40..400; left out for 100
--   subjects  rest    of read: explain, snapshot or audit, and the arguments of that script of the shard
-- Reply
--   array of lines; of rows an array of JSON objects, where `row` says what each is of, `captured_at` is server time
--   in seconds, and other fields have their units in their names (show has no rows); of both {lines, rows}; of read
--   what that script replies; of doctor_members JSON [[state, name, said, remedy], ...]
-- Errors
--   of read those of the script; else none: an unreadable shard has its error in its place
-- Cost
--   of one shard as its script look; of all as much for each of 100 shards, of an audit 100,000 entries in all
-- Invariant
--   changes nothing
-- @bind
-- @include lib/operator/fleet
-- @include lib/operator/doctor

line_width = math.max(40, math.min(400, math.floor(tonumber(most_columns) or line_width)))
local shard_named = K.named or shard or ''
if not most_rows and tonumber(shard_named) and not FLEET.tag_of(shard_named) then
  shard_named, most_rows = '', shard_named
end
local count = tonumber(most_rows)
count = count and math.max(1, math.min(FLEET.most_rows, math.floor(count)))
local answers = {
  shards = function() return FLEET.list(count or FLEET.most_rows) end,
  doctor = DOCTOR.lines,
}
if topic == 'doctor_members' then
  return cjson.encode(MEMBERS_ASKED.checks())
elseif topic == 'read' then
  return FLEET.read_shard(shard_named, { unpack(ARGV, subjects) })
end
local lines = answers[topic] and answers[topic]()
  or FLEET.ask(topic, shard_named == FLEET.index and '' or shard_named, count)
if form == 'rows' then
  return FLEET.rows(lines)
end
return form == 'both' and { lines, FLEET.rows(lines) } or lines
