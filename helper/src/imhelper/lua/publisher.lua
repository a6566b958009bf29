-- publisher: take, keep or give back the right to publish. KEYS[1] is the global tag.
-- ARGV: take|keep|release, kind (self|operator), uid, instance, ttl ms, adopt (1|0).
-- Reply: {1} held, or {0, kind, uid, instance} who holds it ('' where nobody does). While a right runs nobody else takes
-- it. After that an operator's prefix stays the operator's, unless it is adopted; that of `self` is free. `keep` renews
-- what is the caller's already and takes nothing.
local key, now = T .. ':pub', now_ms()
local kind, uid, instance, till = unpack(redis.call('HMGET', key, 'kind', 'uid', 'instance', 'till'))
local alive = kind and tonumber(till) > now
local mine = kind == ARGV[2] and uid == ARGV[3]
if ARGV[1] == 'release' then
  if mine and instance == ARGV[4] then redis.call('HSET', key, 'till', 0) end
  return {1}
end
if ARGV[1] == 'keep' and not mine then return {0, kind or '', uid or '', instance or ''} end
if kind and not mine and (alive or (kind ~= 'self' and ARGV[6] ~= '1')) then return {0, kind, uid, instance} end
if alive and mine and instance ~= ARGV[4] then return {0, kind, uid, instance} end
redis.call('HSET', key, 'kind', ARGV[2], 'uid', ARGV[3], 'instance', ARGV[4], 'till', int(now + tonumber(ARGV[5])))
return {1}
