-- disconnect: the business ends a client: tokens minted before die, its sockets close (4500), offline without grace.
-- ARGV: entries, bytes, ms, slot, client, reason. Returns how many sockets it had.
retention(ARGV[1], ARGV[2], ARGV[3])
local slot, client = ARGV[4], ARGV[5]
redis.call('INCR', T .. ':gen:' .. client)
redis.call('PEXPIRE', T .. ':gen:' .. client, 3700000)
local sockets = redis.call('HGETALL', T .. ':sk:' .. client)
local meta, newest = '', -1
for i = 1, #sockets, 2 do
  redis.call('HDEL', T .. ':bs:' .. string.match(sockets[i], '^(.-)%.'), string.match(sockets[i], '%.(.*)$'))
  local _, _, ms, m = parse_socket(sockets[i + 1])
  if ms > newest then newest, meta = ms, m end
end
redis.call('DEL', T .. ':sk:' .. client)
if #sockets == 0 then
  meta = string.match(redis.call('HGET', T .. ':gm', client) or '', '^%d+\n(.*)$') or ''
else
  append(slot, #ARGV[6], 'd', client, 's', ARGV[6])
end
offline(client, slot, meta)
tell()
return #sockets / 2
