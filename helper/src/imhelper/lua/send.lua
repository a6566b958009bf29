-- send: one message to receivers of this group. One entry a slot touched; once an id, however often it is asked.
-- ARGV: entries, bytes, ms, message id, marker ms, sender, type, payload,
--       receipt (0, 1, or 2: with receipts, and to a part of the receivers in this group, each remembered by itself),
--       sender's slot if it is in this group else '', then slot, receivers joined by \n, ...
-- Returns 1, or 0 when the id was there already. Messages are appended whether or not a receiver is online;
-- presence only decides the receipt. The sender among the receivers gets it only if it holds more than one socket.
retention(ARGV[1], ARGV[2], ARGV[3])
local id, sender, kind, payload, receipt, home = ARGV[4], ARGV[6], ARGV[7], ARGV[8], ARGV[9] ~= '0', ARGV[10]
local mark, parts = T .. ':idem:' .. id, ARGV[9] == '2'
if parts or not redis.call('SET', mark, '1', 'NX', 'PX', ARGV[5]) then
  -- What was sent in parts may be repeated in other parts, or to the rest of the receivers.
  if redis.call('TYPE', mark).ok == 'string' then return 0 end
  parts = true
elseif #ARGV == 12 and not receipt and ARGV[11] ~= home then
  -- The most frequent send, by a shorter way: to one slot, without receipts, and not to the sender.
  append(ARGV[11], #payload, 'm', id, 'f', sender, 't', kind, 'r', '0', 'c', ARGV[12], 'p', payload)
  return 1
end
local slots, texts, waiting, offliners, nobody, pending = {}, {}, {}, {}, {}, 0
for i = 11, #ARGV, 2 do
  local slot, receivers = ARGV[i], ARGV[i + 1]
  local owing = receipt and {} or nobody
  if receipt or parts or (slot == home and string.find('\n' .. receivers .. '\n', '\n' .. sender .. '\n', 1, true)) then
    local kept = {}
    for client in string.gmatch(receivers, '[^\n]+') do
      if parts and redis.call('SADD', mark, client) == 0 then
        -- It has it.
      elseif client == sender then
        if redis.call('HLEN', T .. ':sk:' .. sender) > 1 then kept[#kept + 1] = client end
      else
        kept[#kept + 1] = client
        if receipt then
          if redis.call('SISMEMBER', T .. ':online', client) == 1 then
            owing[#owing + 1] = client
          else
            offliners[#offliners + 1] = client
          end
        end
      end
    end
    receivers = table.concat(kept, '\n')
  end
  if receivers ~= '' then slots[#slots + 1], texts[#texts + 1], waiting[#waiting + 1] = slot, receivers, owing end
end
if parts then redis.call('PEXPIRE', mark, ARGV[5]) end
if #slots > 0 then
  local ids, ns = advance(slots)
  for i, slot in ipairs(slots) do
    local asked = receipt and '1' or '0'
    write(slot, ids[i], ns[i], #payload, 'm', id, 'f', sender, 't', kind, 'r', asked, 'c', texts[i], 'p', payload)
    for _, client in ipairs(waiting[i]) do
      redis.call('ZADD', T .. ':pend:' .. client, int(ns[i]), id)
      redis.call('ZADD', T .. ':due', int(now_ms() + retain + 10000), id .. '\n' .. client)
    end
    pending = pending + #waiting[i]
  end
end
if pending > 0 then
  if parts then pending = pending + (redis.call('HGET', T .. ':rp:' .. id, 'n') or 0) end
  redis.call('HSET', T .. ':rp:' .. id, 's', sender, 'ss', home, 't', kind, 'p', payload, 'n', int(pending))
  redis.call('PEXPIRE', T .. ':rp:' .. id, int(retain * 2 + 60000))
end
if #offliners > 0 then notify(home, id, table.concat(offliners, '\n'), sender, 'o', kind, payload) end
return 1
