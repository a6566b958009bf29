-- receipt: deliver receipts of a message that another group's outbox holds (Redis Cluster). Once, however often it is asked.
-- ARGV: entries, bytes, ms, slot of the sender, message id, receivers joined by \n, sender, status, type, payload.
-- Returns 1 the first time. A receiver yields one receipt, so that the first one's name is that of all that go together.
retention(ARGV[1], ARGV[2], ARGV[3])
local mark = T .. ':idem:r:' .. ARGV[5] .. ':' .. string.match(ARGV[6], '^[^\n]+')
if not redis.call('SET', mark, '1', 'NX', 'PX', 300000) then return 0 end
notify(ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8], ARGV[9], ARGV[10])
return 1
