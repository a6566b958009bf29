-- leave: a client leaves channels. ARGV: entries, bytes, ms, slot, client, chan, ... Returns how many were left.
retention(ARGV[1], ARGV[2], ARGV[3])
local slot, client, spans = ARGV[4], ARGV[5], {}
for i = 6, #ARGV do
  local j = redis.call('HGET', T .. ':ch:' .. client, ARGV[i])
  if j then
    redis.call('HDEL', T .. ':ch:' .. client, ARGV[i])
    uncount(slot, client, ARGV[i])
    local _, n = append(slot, 0, 'l', ARGV[i], 'c', client)
    spans[#spans + 1] = span(ARGV[i], j, n)
  end
end
if #spans > 0 then past(client, spans) end
return #spans
