-- restore: after Redis lost writes a live boot records again what it holds. No events: nothing happened to the clients.
-- ARGV: boot, then for each socket: n, slot, client, start, mode, metadata, number of channels, chan, join n, ...
-- Returns how many sockets had to be recorded again, or -1 for a boot without a marker (`boot` makes it first).
local boot, restored = ARGV[1], 0
if redis.call('SISMEMBER', T .. ':boots', boot) == 0 then return -1 end
local i, ms = 2, int(now_ms())
while i <= #ARGV do
  local n, slot, client, start, mode, meta, chans = unpack(ARGV, i, i + 6)
  i = i + 7
  local sid = boot .. '.' .. n
  redis.call('HSET', T .. ':bs:' .. boot, n, slot .. '\n' .. client)
  if redis.call('HSETNX', T .. ':sk:' .. client, sid, start .. '\n' .. mode .. '\n' .. ms .. '\n' .. meta) == 1 then
    restored = restored + 1
  end
  redis.call('SADD', T .. ':online', client)
  redis.call('ZREM', T .. ':grace', client)
  redis.call('HDEL', T .. ':gm', client)
  redis.call('HDEL', T .. ':gp', client)
  for _ = 1, tonumber(chans) do
    local chan, j = ARGV[i], ARGV[i + 1]
    i = i + 2
    if redis.call('HSETNX', T .. ':ch:' .. client, chan, j) == 1 then
      redis.call('SADD', T .. ':mb:' .. chan, client)
      redis.call('HINCRBY', T .. ':cs:' .. chan, slot, 1)
      redis.call('HINCRBY', T .. ':chans', chan, 1)
    end
  end
end
return restored
