-- close: sockets of a boot went away. ARGV: boot, grace ms, entries, bytes, ms, then n, position, ...
-- The position counts for plain sockets only; '' is where it started (it was given nothing), '-' none: its history is
-- lost, and it starts anew.
-- A socket that is not recorded any more (evicted, disconnected, reclaimed) is passed over. Returns how many went.
local boot, grace = ARGV[1], tonumber(ARGV[2])
retention(ARGV[3], ARGV[4], ARGV[5])
local gone = 0
for i = 6, #ARGV, 2 do
  local known = redis.call('HGET', T .. ':bs:' .. boot, ARGV[i])
  if known then
    redis.call('HDEL', T .. ':bs:' .. boot, ARGV[i])
    local slot, client = string.match(known, '^(%d+)\n(.*)$')
    local sid = boot .. '.' .. ARGV[i]
    local value = redis.call('HGET', T .. ':sk:' .. client, sid)
    if value then
      gone = gone + 1
      redis.call('HDEL', T .. ':sk:' .. client, sid)
      local start, mode, _, meta = parse_socket(value)
      local pos = ARGV[i + 1]
      if mode ~= 'p' or pos == '-' then pos = '' elseif pos == '' then pos = start end
      socket_gone(client, slot, meta, grace, pos)
    end
  end
end
tell()
return gone
