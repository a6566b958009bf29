-- publisher: take, keep or give back the right to publish. KEYS[1] is the global tag.
-- ARGV: take|release, kind (self|operator), uid, instance, ttl ms, adopt (1|0).
-- Reply: {1} held, or {0, kind, uid, instance} who holds it. An operator's prefix stays the operator's when its lease
-- has run out; that of `self` is free then.
local key, now = T .. ':pub', now_ms()
local kind, uid, instance, till = unpack(redis.call('HMGET', key, 'kind', 'uid', 'instance', 'till'))
local alive = kind and tonumber(till) > now
local mine = kind == ARGV[2] and uid == ARGV[3]
if ARGV[1] == 'release' then
  if mine and instance == ARGV[4] then redis.call('HSET', key, 'till', 0) end
  return {1}
end
if kind and not mine and ARGV[6] ~= '1' and (kind ~= 'self' or alive) then return {0, kind, uid, instance} end
if alive and mine and instance ~= ARGV[4] then return {0, kind, uid, instance} end
redis.call('HSET', key, 'kind', ARGV[2], 'uid', ARGV[3], 'instance', ARGV[4], 'till', int(now + tonumber(ARGV[5])))
return {1}
