-- goodbye: a boot that closed all its sockets leaves the group. ARGV: boot. Returns how many sockets were left behind.
local left = redis.call('HLEN', T .. ':bs:' .. ARGV[1])
if left == 0 then
  redis.call('SREM', T .. ':boots', ARGV[1])
  redis.call('DEL', T .. ':bp:' .. ARGV[1], T .. ':wake:' .. ARGV[1])
end
return left
