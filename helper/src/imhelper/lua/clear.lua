-- clear: take members out of a channel, a bounded batch a call.
-- ARGV: entries, bytes, ms, chan, then slot, clients joined by \n, ... as read from the members' set.
-- The caller gives the slots, for Lua has no CRC-32. Returns how many were removed.
retention(ARGV[1], ARGV[2], ARGV[3])
local chan, removed = ARGV[4], 0
for i = 5, #ARGV, 2 do
  local slot, gone, joined = ARGV[i], {}, {}
  for client in string.gmatch(ARGV[i + 1], '[^\n]+') do
    local j = redis.call('HGET', T .. ':ch:' .. client, chan)
    if j then
      redis.call('HDEL', T .. ':ch:' .. client, chan)
      uncount(slot, client, chan)
      gone[#gone + 1] = client
      joined[#joined + 1] = j
    end
  end
  if #gone > 0 then
    local clients = table.concat(gone, '\n')
    local _, n = append(slot, #clients, 'l', chan, 'c', clients)
    for k = 1, #gone do past(gone[k], {span(chan, joined[k], n)}) end
    removed = removed + #gone
  end
end
return removed
