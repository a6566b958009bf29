-- beat: a server renews its lease and learns of all others. KEYS[1] is the global tag.
-- ARGV: name, boot, take over (1 at the first beat of a boot, else 0), report (JSON), known epoch, may restore (1|0).
-- Reply: {status, now ms, run id, the boot that was replaced or '', epoch, record or '' when known, {name, lease, ...}}
-- status: 'ok', or 'fenced' (another boot of the name, or a reclaim, ended this one), or 'lost' (the lease is not there:
-- Redis lost writes or somebody reclaimed; the caller knows by the run id, and asks again with `may restore`).
local name, boot, key = ARGV[1], ARGV[2], T .. ':servers'
local now = int(now_ms())
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)') or ''
local current, status, old, beat = redis.call('HGET', key, name), 'ok', '', 0
local cboot, cbeat
if current then cboot, cbeat = string.match(current, '^(.-)\n(%d+)\n') end
if redis.call('HEXISTS', T .. ':fenced', boot) == 1 then
  status = 'fenced'
elseif cboot == boot then
  beat = tonumber(cbeat) + 1
elseif ARGV[3] == '1' then
  if cboot then
    old = cboot
    mark_ended(T .. ':fenced', cboot)
  end
elseif cboot then
  status = 'fenced'
elseif ARGV[6] ~= '1' then
  status = 'lost'
end
if status == 'ok' then redis.call('HSET', key, name, boot .. '\n' .. int(beat) .. '\n' .. now .. '\n' .. ARGV[4]) end
local topo = redis.call('HMGET', T .. ':topo', 'epoch', 'record')
local record = ''
if topo[1] and topo[1] ~= ARGV[5] then record = topo[2] end
return {status, now, run, old, topo[1] or '', record, redis.call('HGETALL', key)}
