-- view: what a helper needs to choose a server. KEYS[1] is the global tag. ARGV: known epoch.
-- Reply: {now ms, epoch or '', record or '' when known, {name, lease, ...}}
local topo = redis.call('HMGET', T .. ':topo', 'epoch', 'record')
local record = ''
if topo[1] and topo[1] ~= ARGV[1] then record = topo[2] end
return {int(now_ms()), topo[1] or '', record, redis.call('HGETALL', T .. ':servers')}
