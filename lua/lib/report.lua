-- What the lines for people of both kinds of shard share.
-- @include lib/table_lines
local REPORT = {}

function REPORT.seconds(us)
  return string.format('%.3f s', tonumber(us) / 1000000)
end

-- Nothing, and 0 where it stands for "none", as a dash.
function REPORT.or_dash(value)
  return (value == nil or value == 0 or value == '') and '-' or value
end
