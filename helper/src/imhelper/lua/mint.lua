-- mint: store a one-time token. ARGV: token, ttl ms, client, metadata.
-- The token dies with the client's next `disconnect`: it holds the generation that it was minted in.
local gen = redis.call('GET', T .. ':gen:' .. ARGV[3])
if gen then redis.call('PEXPIRE', T .. ':gen:' .. ARGV[3], 3700000) end
redis.call('SET', T .. ':tok:' .. ARGV[1], (gen or '') .. '\n' .. ARGV[3] .. '\n' .. ARGV[4], 'PX', ARGV[2])
return 1
