-- positions: where the plain sockets of a boot are, once a second. ARGV: boot, then slot, id, ...
-- Returns 0 for a boot without a marker.
if redis.call('SISMEMBER', T .. ':boots', ARGV[1]) == 0 then return 0 end
redis.call('HSET', T .. ':bp:' .. ARGV[1], unpack(ARGV, 2))
return 1
