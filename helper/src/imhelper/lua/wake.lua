-- wake: write to the stream that a boot's reader always follows. ARGV: boot, kind, value.
-- `c` is the boot's own canary, `w` wakes it for a new slot, `q` asks where a socket of it ended and `a` answers.
-- Refused (0) for a boot without a marker: nothing of a fenced server may stay behind.
if redis.call('SISMEMBER', T .. ':boots', ARGV[1]) == 0 then return 0 end
redis.call('XADD', T .. ':wake:' .. ARGV[1], 'MAXLEN', '~', 1000, '*', ARGV[2], ARGV[3])
redis.call('PEXPIRE', T .. ':wake:' .. ARGV[1], 300000)
return 1
