-- events_lease: take, renew or let go partitions of a consumer group of events, in this group of keys.
-- ARGV: group name, member, lease ms, then partition, '+' (hold) or '-' (let go), position ('' = unknown), ...
-- A position is what its holder has finished; it becomes the cursor. A partition that has none yet begins here and now,
-- whoever holds it, so that nothing is lost between the first subscription and the first lease.
-- Reply: {partition, cursor, ...} of those that the member holds now.
local key, member, now = T .. ':eg:' .. ARGV[1], ARGV[2], now_ms()
local till, held, newest = int(now + ARGV[3]), {}, nil
for i = 4, #ARGV, 3 do
  local p, position = ARGV[i], ARGV[i + 2]
  local owner, lease, cursor = unpack(redis.call('HMGET', key, 'o' .. p, 'u' .. p, 'c' .. p))
  local mine = owner == member
  if position ~= '' and (not cursor or (mine and before(cursor, position))) then
    cursor = position
    redis.call('HSET', key, 'c' .. p, cursor)
  elseif not cursor then
    if not newest then
      local last = redis.call('XREVRANGE', T .. ':ev', '+', '-', 'COUNT', 1)[1]
      newest = last and last[1] or '0-0'
    end
    cursor = newest
    redis.call('HSET', key, 'c' .. p, cursor)
  end
  if ARGV[i + 1] == '-' then
    if mine then redis.call('HDEL', key, 'o' .. p, 'u' .. p) end
  elseif mine or not owner or tonumber(lease) < now then
    redis.call('HSET', key, 'o' .. p, member, 'u' .. p, till)
    held[#held + 1] = p
    held[#held + 1] = cursor
  end
end
redis.call('PEXPIRE', key, 86400000)
return held
