-- The operations of a member's batch by name, which its kind of shard defines: each is a function that takes
-- the operation's arguments and returns its result as JSON text. Ids, names and signatures arrive encoded, so
-- that none can break a string.
local OPERATIONS = {}
-- How many arguments an operation has, where its caller does not say that itself before them; which argument
-- is one of which words; and whether the first is the id of a lease that is there, or of one to be.
local FORMS = {}
-- Operations that give their caller something: refused to one that has left in the same batch, as nobody
-- would ever take that back.
local FOR_MEMBERS = {}
-- Of the operation that is carried out, in ARGV.
local first_argument, last_argument = 0, 0 -- luacheck: ignore 231
