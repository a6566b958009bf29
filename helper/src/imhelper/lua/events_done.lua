-- events_done: an event of a partition is finished; the cursor moves, if the member still holds the partition.
-- ARGV: group name, member, lease ms, partition, id of the event. Returns 1, or 0 when another member holds it now.
local key, p = T .. ':eg:' .. ARGV[1], ARGV[4]
if redis.call('HGET', key, 'o' .. p) ~= ARGV[2] then return 0 end
redis.call('HSET', key, 'c' .. p, ARGV[5], 'u' .. p, int(now_ms() + ARGV[3]))
return 1
