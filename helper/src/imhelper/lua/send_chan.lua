-- send_chan: one message to a channel's members in this group, known from counts, never by reading the members.
-- ARGV: entries, bytes, ms, message id, marker ms, sender, type, payload, chan. Returns how many slots got it.
retention(ARGV[1], ARGV[2], ARGV[3])
if not redis.call('SET', T .. ':idem:' .. ARGV[4], '1', 'NX', 'PX', ARGV[5]) then return 0 end
local slots = redis.call('HKEYS', T .. ':cs:' .. ARGV[9])
if #slots == 0 then return 0 end
local ids, ns = advance(slots)
for i = 1, #slots do
  write(slots[i], ids[i], ns[i], #ARGV[8], 'c', ARGV[4], 'f', ARGV[6], 't', ARGV[7], 'h', ARGV[9], 'p', ARGV[8])
end
return #slots
