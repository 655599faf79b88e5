-- An operator's question about a task pool, answered in lines for people.
--
-- KEYS
-- @include lib/tasks/keys
-- ARGV
--   topic        string  show, who, members, waiters, shares, events, audit or read
--   most_rows    integer how many rows of each list, 1..100
--   entry_bound  integer how many entries an audit compares; above, the totals alone; "" for as many as it may
--   most_columns integer most columns of a line; "" for 100
--   subjects     rest    of read: explain, snapshot or audit, and the arguments of that script
-- Reply
--   array of lines; of read the JSON of that script; of show: title, totals, then a table each of functions nobody
--   serves, resources, what first tasks ask for, groups, members and runs
-- Errors
--   SCHEMA the shard was written with another schema version; DAMAGED a key cannot be read
-- Cost
--   of show O(log n) per row, O(n) in resources, signatures and runs; of who O(log n) for each of 1,000 members and
--   1,000 leases; of members O(log n) per row; of waiters O(log n) per row, O(n) in signatures; of shares O(log n) for
--   each of 1,000 groups; of events O(rows); of audit as tasks/audit
-- Invariant
--   changes nothing, the clock neither
-- @bind
-- @include lib/tasks/check
-- @include lib/tasks/questions

return QUESTIONS.answer(topic, tonumber(most_rows), tonumber(entry_bound), tonumber(most_columns),
  { unpack(ARGV, subjects) })
