-- sweep: end what is due in this group, a bounded batch a call. ARGV: batch, entries, bytes, ms.
-- Returns {clients gone offline, receipts decided, 1 if more is due, length of the outbox}.
retention(ARGV[2], ARGV[3], ARGV[4])
local batch, now = tonumber(ARGV[1]), int(now_ms())
local gone = redis.call('ZRANGEBYSCORE', T .. ':grace', '-inf', now, 'LIMIT', 0, batch)
for i = 1, #gone do
  local slot, meta = string.match(redis.call('HGET', T .. ':gm', gone[i]) or '', '^(%d+)\n(.*)$')
  offline(gone[i], slot or '0', meta or '')
end
local due = redis.call('ZRANGEBYSCORE', T .. ':due', '-inf', now, 'LIMIT', 0, batch)
for i = 1, #due do
  local id, client = string.match(due[i], '^(.-)\n(.*)$')
  decide(client, id, 'o')
  redis.call('ZREM', T .. ':due', due[i])
end
tell()
redis.call('XTRIM', T .. ':ev', 'MINID', '~', int(now - 3600000))
local more = 0
if #gone == batch or #due == batch then more = 1 end
return {#gone, #due, more, redis.call('XLEN', T .. ':out')}
