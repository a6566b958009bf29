-- ack: receipts of clients are true now. ARGV: entries, bytes, ms, then client, lo n, hi n, ... (lo < n <= hi).
-- Returns for each client how many receipts are still pending; or -1 when there was too much for one call: ask again.
retention(ARGV[1], ARGV[2], ARGV[3])
local reply, room = {}, 500
for i = 4, #ARGV, 3 do
  local client, left = ARGV[i], -1
  if room > 0 then
    local key = T .. ':pend:' .. client
    local ids = redis.call('ZRANGEBYSCORE', key, '(' .. ARGV[i + 1], ARGV[i + 2], 'LIMIT', 0, room)
    for _, id in ipairs(ids) do decide(client, id, 'd') end
    room = room - #ids
    if room > 0 then left = redis.call('ZCARD', key) end
  end
  reply[#reply + 1] = left
end
tell()
return reply
