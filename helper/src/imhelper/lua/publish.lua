-- publish: put a new topology in force, if this publisher may and nobody was faster. KEYS[1] is the global tag.
-- ARGV: kind, uid, instance, the epoch it was derived from ('' = none), the highest epoch that a lease reports, record.
-- Reply: {1, new epoch} | {0, 'publisher'} | {0, 'epoch', the one in force}.
-- The new epoch is above Redis's, every lease's and the clock's milliseconds: neither a failover nor a wipe lets it go
-- back, not even when what was published last is in no lease yet.
local now = now_ms()
local kind, uid, instance, till = unpack(redis.call('HMGET', T .. ':pub', 'kind', 'uid', 'instance', 'till'))
if kind ~= ARGV[1] or uid ~= ARGV[2] or instance ~= ARGV[3] or tonumber(till) <= now then return {0, 'publisher'} end
local epoch = redis.call('HGET', T .. ':topo', 'epoch') or ''
if epoch ~= ARGV[4] then return {0, 'epoch', epoch} end
local new = math.max(tonumber(epoch) or 0, tonumber(ARGV[5]) or 0, now) + 1
redis.call('HSET', T .. ':topo', 'epoch', int(new), 'record', ARGV[6])
return {1, int(new)}
