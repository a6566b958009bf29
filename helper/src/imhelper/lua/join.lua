-- join: a client becomes a member. ARGV: entries, bytes, ms, slot, client, chan.
-- Returns 1, or 0 when the client is not online (nothing recorded). The log entry is what servers follow.
retention(ARGV[1], ARGV[2], ARGV[3])
local slot, client, chan = ARGV[4], ARGV[5], ARGV[6]
if redis.call('SISMEMBER', T .. ':online', client) == 0 then return 0 end
if redis.call('HEXISTS', T .. ':ch:' .. client, chan) == 1 then return 1 end
enroll(slot, client, chan)
return 1
