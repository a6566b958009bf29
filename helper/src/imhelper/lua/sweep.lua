-- sweep: end what is due in this group, a bounded batch a call: so many clients and receipts, and less when they were in many
-- channels or owed many receipts. ARGV: batch, entries, bytes, ms.
-- Returns {clients gone offline, receipts decided, 1 if more is due, length of the outbox}.
retention(ARGV[2], ARGV[3], ARGV[4])
local batch, now = tonumber(ARGV[1]), int(now_ms())
local gone = redis.call('ZRANGEBYSCORE', T .. ':grace', '-inf', now, 'LIMIT', 0, batch)
local ended, settled = 0, 0
while ended < #gone and work < enough do
  ended = ended + 1
  local slot, meta = string.match(redis.call('HGET', T .. ':gm', gone[ended]) or '', '^(%d+)\n(.*)$')
  offline(gone[ended], slot or '0', meta or '')
end
local due = redis.call('ZRANGEBYSCORE', T .. ':due', '-inf', now, 'LIMIT', 0, batch)
while settled < #due and work < enough do
  settled, work = settled + 1, work + 1
  local id, client = string.match(due[settled], '^(.-)\n(.*)$')
  decide(client, id, 'o')
  redis.call('ZREM', T .. ':due', due[settled])
end
tell()
redis.call('XTRIM', T .. ':ev', 'MINID', '~', int(now - 3600000))
local more = 0
if work >= enough or #gone == batch or #due == batch then more = 1 end
return {ended, settled, more, redis.call('XLEN', T .. ':out')}
