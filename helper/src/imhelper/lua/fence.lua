-- fence: end a boot whose beat stood still for a lease. KEYS[1] is the global tag.
-- ARGV: name, boot, the beat that stood still. Returns 1 if this call fenced it, 0 if it moved or is gone already.
-- The fenced mark outlives the lease, so that the boot learns it when it wakes; marks are kept for a day.
local key = T .. ':servers'
local current = redis.call('HGET', key, ARGV[1])
if not current then return 0 end
local boot, beat = string.match(current, '^(.-)\n(%d+)\n')
if boot ~= ARGV[2] or beat ~= ARGV[3] then return 0 end
redis.call('HDEL', key, ARGV[1])
mark_ended(T .. ':fenced', ARGV[2])
return 1
