-- events_members: the members of a consumer group of events. KEYS[1] is the global tag.
-- ARGV: group name, member, life ms (0: the member leaves). Returns the members that are alive, sorted.
-- Every member derives from this list which partitions are its own, so nobody has to distribute them.
local key, now = T .. ':em:' .. ARGV[1], now_ms()
local life = tonumber(ARGV[3])
redis.call('ZREMRANGEBYSCORE', key, '-inf', '(' .. int(now))
if life > 0 then
  redis.call('ZADD', key, int(now + life), ARGV[2])
  redis.call('PEXPIRE', key, int(life * 10))
else
  redis.call('ZREM', key, ARGV[2])
end
local members = redis.call('ZRANGE', key, 0, -1)
table.sort(members)
return members
