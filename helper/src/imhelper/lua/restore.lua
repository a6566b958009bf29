-- restore: after Redis lost writes a live boot records again what it holds. No events: nothing happened to the clients.
-- ARGV: entries, bytes, ms, boot, then for each slot: slot, the last entry that the boot has worked off, number of
-- sockets, and for each socket: n, client, start, mode, metadata, number of channels, chan, ...
-- Returns {sockets that had to be recorded again, slot, ...}: in these slots the boot was behind the log. What it holds
-- there may be undone by an entry that it has not read yet (a leave, a disconnect), so that it must read and ask again.
-- {-1} for a boot without a marker (`boot` makes it first).
retention(ARGV[1], ARGV[2], ARGV[3])
local boot, reply = ARGV[4], {0}
if redis.call('SISMEMBER', T .. ':boots', boot) == 0 then return {-1} end
local i, ms = 5, int(now_ms())
while i <= #ARGV do
  local slot, seen, sockets = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2])
  local current = (redis.call('HGET', T .. ':last', slot) or '0-0') == seen
  if not current then reply[#reply + 1] = slot end
  i = i + 3
  for _ = 1, sockets do
    local n, client, start, mode, meta, chans = unpack(ARGV, i, i + 5)
    i = i + 6
    if current then
      local sid = boot .. '.' .. n
      redis.call('HSET', T .. ':bs:' .. boot, n, slot .. '\n' .. client)
      if redis.call('HSETNX', T .. ':sk:' .. client, sid, start .. '\n' .. mode .. '\n' .. ms .. '\n' .. meta) == 1 then
        reply[1] = reply[1] + 1
      end
      redis.call('SADD', T .. ':online', client)
      redis.call('ZREM', T .. ':grace', client)
      redis.call('HDEL', T .. ':gm', client)
      for k = i, i + tonumber(chans) - 1 do
        if redis.call('HEXISTS', T .. ':ch:' .. client, ARGV[k]) == 0 then enroll(slot, client, ARGV[k]) end
      end
    end
    i = i + tonumber(chans)
  end
end
return reply
