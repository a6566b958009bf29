-- ack: receipts of clients are true now. ARGV: entries, bytes, ms, then client, lo n, hi n, ... (lo < n <= hi).
-- Returns how many receipts are still pending for each client.
retention(ARGV[1], ARGV[2], ARGV[3])
local reply = {}
for i = 4, #ARGV, 3 do
  local client, lo, hi, left = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2]), 0
  local pend = redis.call('HGETALL', T .. ':pend:' .. client)
  for k = 1, #pend, 2 do
    local n = tonumber(pend[k + 1])
    if n > lo and n <= hi then decide(client, pend[k], 'd') else left = left + 1 end
  end
  reply[#reply + 1] = left
end
tell()
return reply
