-- positions: where the plain sockets of a boot are, once a second. ARGV: boot, the number up to which the sockets are
-- known to these positions, then slot, id, ... A socket with a higher number is where it started.
-- Returns 0 for a boot without a marker.
if redis.call('SISMEMBER', T .. ':boots', ARGV[1]) == 0 then return 0 end
for i = 3, #ARGV, 2 do redis.call('HSET', T .. ':bp:' .. ARGV[1], ARGV[i], ARGV[2] .. ' ' .. ARGV[i + 1]) end
return 1
