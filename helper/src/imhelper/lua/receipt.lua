-- receipt: deliver a receipt that another group's outbox holds (Redis Cluster). Once, however often it is asked.
-- ARGV: entries, bytes, ms, slot of the sender, message id, receiver, sender, status, type, payload. Returns 1 the first time.
retention(ARGV[1], ARGV[2], ARGV[3])
if not redis.call('SET', T .. ':idem:r:' .. ARGV[5] .. ':' .. ARGV[6], '1', 'NX', 'PX', 300000) then return 0 end
append(ARGV[4], #ARGV[10], 'r', ARGV[5], 'f', ARGV[6], 'c', ARGV[7], 's', ARGV[8], 't', ARGV[9], 'p', ARGV[10])
return 1
