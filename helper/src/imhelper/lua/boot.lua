-- boot: let a boot record in this group. ARGV: boot. Returns the group's incarnation, made at the first call, or nothing
-- for a boot whose sockets were reclaimed: what it held is no longer true, and must not be recorded again.
if redis.call('HEXISTS', T .. ':ended', ARGV[1]) == 1 then return false end
redis.call('SADD', T .. ':boots', ARGV[1])
if redis.call('EXISTS', T .. ':inc') == 0 then redis.call('SET', T .. ':inc', redis.call('TIME')[1]) end
return redis.call('GET', T .. ':inc')
