-- part: a server that has ended takes its lease back. KEYS[1] is the global tag. ARGV: name, boot. Returns 1 if it was there.
local current = redis.call('HGET', T .. ':servers', ARGV[1])
if current and string.match(current, '^(.-)\n') == ARGV[2] then
  return redis.call('HDEL', T .. ':servers', ARGV[1])
end
return 0
