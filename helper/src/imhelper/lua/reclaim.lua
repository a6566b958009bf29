-- reclaim: fence a boot in this group and take its sockets back, one bounded batch a call.
-- ARGV: boot, batch, grace ms, entries, bytes, ms, cursor ('0' at first).
-- Returns {how many went, how many are left, cursor}: with some left, call again with that cursor. Each call from '0'
-- would look through the places of all that went before, more and more of them, and in the end at nothing else.
-- The marker goes first: from then on no script records anything for this boot, and `ended` keeps it from getting
-- another one, for a day. `dying` keeps the boot known until all is taken back, so that another server goes on when the
-- reclaiming one dies.
local boot, grace = ARGV[1], tonumber(ARGV[3])
retention(ARGV[4], ARGV[5], ARGV[6])
redis.call('SREM', T .. ':boots', boot)
if redis.call('HEXISTS', T .. ':ended', boot) == 0 then mark_ended(T .. ':ended', boot) end
redis.call('SADD', T .. ':dying', boot)
local key = T .. ':bs:' .. boot
local cursor, items = unpack(redis.call('HSCAN', key, ARGV[7], 'COUNT', ARGV[2]))
local gone = 0
for i = 1, #items, 2 do
  redis.call('HDEL', key, items[i])
  local slot, client = string.match(items[i + 1], '^(%d+)\n(.*)$')
  local sid = boot .. '.' .. items[i]
  local value = redis.call('HGET', T .. ':sk:' .. client, sid)
  if value then
    gone = gone + 1
    redis.call('HDEL', T .. ':sk:' .. client, sid)
    local start, mode, _, meta = parse_socket(value)
    socket_gone(client, slot, meta, grace, mode == 'p' and reported(boot, items[i], slot, start) or '')
  end
end
tell()
local left = redis.call('HLEN', key)
if left == 0 then
  redis.call('DEL', T .. ':bp:' .. boot, T .. ':wake:' .. boot)
  redis.call('SREM', T .. ':dying', boot)
end
return {gone, left, cursor}
