-- connect: consume a token and record the socket, all before the 101.
-- ARGV: boot, n, token, slot, mode (p|e), since incarnation, since id ('' = none), max sockets, entries, bytes, ms,
--       the incarnation that the server knows, and if there is one the ms on this clock up to which it waits.
-- (boot, n) names the handshake: asked again after a lost reply, it answers from what it recorded.
-- Reply: {'fenced'} | {'stale'} (the incarnation is another one: the token stays good) | {'unknown'} |
--   {'late', now ms} (it waits no longer, and would not hold what is recorded: the token stays good) |
--   {'ok', client, metadata, last id, start id, recovered, {chan, join n, ...}, {past ...}, pending
--    receipts, {boot, n, last reported position of another plain socket of the client, ...}}
local boot, n, token, slot, mode = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local since_inc, since, max = ARGV[6], ARGV[7], tonumber(ARGV[8])
retention(ARGV[9], ARGV[10], ARGV[11])
if redis.call('SISMEMBER', T .. ':boots', boot) == 0 then return {'fenced'} end
local sid = boot .. '.' .. n
local inc = redis.call('GET', T .. ':inc') or '0'
if inc ~= ARGV[12] then return {'stale'} end
local last = redis.call('HGET', T .. ':last', slot) or '0-0'
local known = redis.call('HGET', T .. ':bs:' .. boot, n)
local client, start, meta
local recovered, others = 0, {}
-- Who comes online only now has no memberships and owes no receipts: both ended with its presence, or are about to.
local fresh = false

if known then
  client = string.match(known, '^%d+\n(.*)$')
  local value = redis.call('HGET', T .. ':sk:' .. client, sid)
  if not value then return {'unknown'} end
  local ignored
  start, ignored, ignored, meta = parse_socket(value)
  if since ~= '' and since_inc == inc and start == since then recovered = 1 end
else
  if ARGV[13] and now_ms() > tonumber(ARGV[13]) then return {'late', int(now_ms())} end
  local value = redis.call('GET', T .. ':tok:' .. token)
  if not value then return {'unknown'} end
  redis.call('DEL', T .. ':tok:' .. token)
  local gen
  gen, client, meta = string.match(value, '^(.-)\n(.-)\n(.*)$')
  if (redis.call('GET', T .. ':gen:' .. client) or '') ~= gen then return {'unknown'} end
  start = last
  local sockets = redis.call('HGETALL', T .. ':sk:' .. client)
  if since ~= '' then
    if since_inc == inc and not before(last, since) then
      local _, sn = split_id(since)
      if since == last then
        recovered = 1
      else
        local first = redis.call('XRANGE', T .. ':log:' .. slot, '(' .. since, '+', 'COUNT', 1)[1]
        if first then
          local _, fn = split_id(first[1])
          if fn == sn + 1 then recovered = 1 end
        end
      end
    end
    if recovered == 1 then
      start = since
    else
      local first = redis.call('XRANGE', T .. ':log:' .. slot, '-', '+', 'COUNT', 1)[1]
      if first then
        local fms, fn = split_id(first[1])
        start = int(fms) .. '-' .. int(fn - 1)
      end
    end
  elseif mode == 'p' then
    -- A plain client that comes back starts where its earlier socket ended; one whose server is gone, but not yet
    -- reclaimed, starts at what that server last reported. What is on record for a boot that may live is the caller's
    -- to ask about: it may have ended, and Redis not know it yet.
    local kept = kept_place(client)
    if kept and before(kept, last) then start = kept end
    for i = 1, #sockets, 2 do
      local other, on = string.match(sockets[i], '^(.-)%.(.*)$')
      local ostart, omode = parse_socket(sockets[i + 1])
      if omode == 'p' then
        local pos = reported(other, on, slot, ostart)
        if redis.call('SISMEMBER', T .. ':boots', other) == 1 then
          for _, x in ipairs({other, on, pos}) do others[#others + 1] = x end
        elseif before(pos, start) then
          start = pos
        end
      end
    end
  end
  -- On record is the earliest place that may come of asking: this server may die before it reports another.
  local earliest = start
  for i = 3, #others, 3 do
    if before(others[i], earliest) then earliest = others[i] end
  end
  local ms = int(now_ms())
  redis.call('HSET', T .. ':sk:' .. client, sid, earliest .. '\n' .. mode .. '\n' .. ms .. '\n' .. meta)
  redis.call('HSET', T .. ':bs:' .. boot, n, slot .. '\n' .. client)
  if redis.call('ZREM', T .. ':grace', client) == 1 then redis.call('HDEL', T .. ':gm', client) end
  if mode == 'p' then redis.call('HDEL', T .. ':gp', client) end
  fresh = redis.call('SADD', T .. ':online', client) == 1
  if fresh then event('on', client, slot, meta) end
  local count = #sockets / 2 + 1
  while count > max do
    local oldest, at
    for i = 1, #sockets, 2 do
      if sockets[i] then
        local _, _, oms = parse_socket(sockets[i + 1])
        if not at or oms < at then oldest, at = i, oms end
      end
    end
    local osid = sockets[oldest]
    sockets[oldest] = false
    redis.call('HDEL', T .. ':sk:' .. client, osid)
    redis.call('HDEL', T .. ':bs:' .. string.match(osid, '^(.-)%.'), string.match(osid, '%.(.*)$'))
    last = append(slot, 0, 'e', osid, 'c', client)
    count = count - 1
  end
end

return {
  'ok', client, meta, last, start, recovered,
  fresh and {} or redis.call('HGETALL', T .. ':ch:' .. client), redis.call('LRANGE', T .. ':past:' .. client, 0, -1),
  fresh and 0 or redis.call('ZCARD', T .. ':pend:' .. client), others,
}
