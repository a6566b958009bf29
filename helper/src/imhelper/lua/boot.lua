-- boot: let a boot record in this group. ARGV: boot. Returns the group's incarnation, made at the first call.
redis.call('SADD', T .. ':boots', ARGV[1])
if redis.call('EXISTS', T .. ':inc') == 0 then redis.call('SET', T .. ':inc', redis.call('TIME')[1]) end
return redis.call('GET', T .. ':inc')
