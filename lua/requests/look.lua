-- An operator's question about a request shard, answered in lines for people.
--
-- KEYS
-- @include lib/requests/keys
-- ARGV
--   topic        string  show, who, members, waiters, shares, events, audit or read
--   most_rows    integer how many rows of each list, 1..100
--   entry_bound  integer how many entries an audit compares; above, the totals alone; "" for as many as it may
--   most_columns integer most columns of a line; "" for 100
--   subjects     rest    of read: explain, snapshot or audit, and the arguments of that script
-- Reply
--   array of lines; of read the JSON of that script; of show: title, totals, then a table each of windows, counters,
--   waiting groups, members and registrations
-- Errors
--   SCHEMA the shard was written with another schema version; DAMAGED a key cannot be read
-- Cost
--   of show as requests/snapshot, and 500 events; of who O(log n) for each of 1,000 members and 1,000 leases; of members
--   and waiters O(log n) per row; of shares O(log n) for each of 1,000 groups; of events O(rows); of audit as
--   requests/audit
-- Invariant
--   changes nothing, the clock neither
-- @bind
-- @include lib/requests/types
-- @include lib/requests/questions

return QUESTIONS.answer(topic, tonumber(most_rows), tonumber(entry_bound), tonumber(most_columns),
  { unpack(ARGV, subjects) })
