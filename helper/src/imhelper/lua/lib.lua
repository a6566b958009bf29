-- lib.lua: in front of every script, as far as it is used. What appends to logs, ends presence and decides receipts.
-- KEYS[1] is the tag of a group, `{prefix:g}`, or of the global keys, `{prefix}`; all other keys start with it.
-- A paragraph with all that it defines is taken or left as a whole, and defines only what later ones use.
local T = KEYS[1]

-- Redis's clock in ms. It stands still while a script runs.
local clock
local function now_ms()
  if not clock then
    local t = redis.call('TIME')
    clock = t[1] * 1000 + math.floor(t[2] / 1000)
  end
  return clock
end

local function int(x) return string.format('%d', x) end

-- Mark a boot in a hash of boots that have ended. Marks are kept for a day, of a server that starts and dies again and again
-- the newest thousand.
local function mark_ended(key, boot)
  local now, marks, oldest, first = now_ms(), redis.call('HGETALL', key), nil, math.huge
  for i = 1, #marks, 2 do
    local at = tonumber(marks[i + 1])
    if at < now - 86400000 then
      redis.call('HDEL', key, marks[i])
    elseif at < first then
      oldest, first = marks[i], at
    end
  end
  if #marks >= 2000 and oldest then redis.call('HDEL', key, oldest) end
  redis.call('HSET', key, boot, int(now))
end

-- "ms-n" -> ms, n as numbers
local function split_id(id)
  local ms, n = string.match(id, '^(%d+)%-(%d+)$')
  return tonumber(ms), tonumber(n)
end

-- Retention of the logs: entries, bytes, milliseconds a slot. Scripts that append set it from their arguments.
local cap, cap_bytes, retain = 10000, 16777216, 60000
local function retention(entries, bytes, ms)
  cap, cap_bytes, retain = tonumber(entries), tonumber(bytes), tonumber(ms)
end

-- The id and number of the entry after the last one of a log. An id is time-n, n dense, so that every reader sees a jump;
-- a clock that went back does not matter.
local function next_id(last)
  local ms, n = now_ms(), 1
  if last then
    local lms, ln = split_id(last)
    if lms > ms then ms = lms end
    n = ln + 1
  end
  return string.format('%d-%d', ms, n), n
end

-- The ids and numbers of the next entry in each of some slots' logs, which are the last ones from now on. To be written
-- at once: what is missing is a gap.
local function advance(slots)
  local lasts, ids, ns, record, ahead = redis.call('HMGET', T .. ':last', unpack(slots)), {}, {}, {}, {}
  for i, slot in ipairs(slots) do
    local id, n = next_id(ahead[slot] or lasts[i])
    ids[i], ns[i], record[2 * i - 1], record[2 * i], ahead[slot] = id, n, slot, id, id
  end
  redis.call('HSET', T .. ':last', unpack(record))
  return ids, ns
end

-- Write an entry whose id is recorded already. XADD bounds the entries; time and bytes are looked at now and then: at each
-- 64th entry and at large ones, so that at most an eighth of the bytes comes between two looks. The newest entries stay, however
-- large they are: somebody may be about to read them.
local function write(slot, id, n, size, ...)
  local key = T .. ':log:' .. slot
  redis.call('XADD', key, 'MAXLEN', cap < 1000 and '=' or '~', cap, id, ...)
  if n % 64 == 0 then redis.call('XTRIM', key, 'MINID', '~', int(now_ms() - retain)) end
  if n % 64 == 0 or size + 100 > cap_bytes / 512 then
    local used = redis.call('MEMORY', 'USAGE', key) or 0
    if used > cap_bytes * 7 / 8 then
      local fit = math.floor(redis.call('XLEN', key) * cap_bytes * 0.75 / used)
      redis.call('XTRIM', key, 'MAXLEN', math.max(fit, 4))
    end
  end
end

-- Append an entry to the log of one slot.
local function append(slot, size, ...)
  local id, n = next_id(redis.call('HGET', T .. ':last', slot))
  redis.call('HSET', T .. ':last', slot, id)
  write(slot, id, n, size, ...)
  return id, n
end

-- Put receipts of one message and status on their way to its sender: one entry, however many receivers (joined by \n), for
-- it holds the payload. `home` is the sender's slot, '' for a sender in another group.
local function notify(home, id, receivers, sender, status, kind, payload)
  if home ~= '' then
    local size = #receivers + #payload
    append(home, size, 'r', id, 'f', receivers, 'c', sender, 's', status, 't', kind, 'p', payload)
  else
    redis.call('XADD', T .. ':out', '*', 'r', id, 'f', receivers, 'c', sender, 's', status, 't', kind, 'p', payload)
  end
end

-- Whoever removes a pending receipt decides it, and puts it on its way to the sender in the same script, by `tell` at its
-- end: so those of one message go together.
local decided = {}
local function decide(client, id, status)
  if redis.call('ZREM', T .. ':pend:' .. client, id) == 0 then return end
  redis.call('ZREM', T .. ':due', id .. '\n' .. client)
  local kind = id .. status
  if not decided[kind] then
    decided[kind] = {}
    decided[#decided + 1] = {id, status, decided[kind]}
  end
  table.insert(decided[kind], client)
end

local function tell()
  for _, one in ipairs(decided) do
    local id, status, receivers = unpack(one)
    local key = T .. ':rp:' .. id
    local m = redis.call('HMGET', key, 's', 'ss', 't', 'p')
    if m[1] then
      if redis.call('HINCRBY', key, 'n', -#receivers) <= 0 then redis.call('DEL', key) end
      notify(m[2], id, table.concat(receivers, '\n'), m[1], status, m[3], m[4])
    end
  end
end

-- Remember for replays where a client was a member: "j n chan" is from after entry j until entry n.
local function span(chan, j, n) return j .. ' ' .. int(n) .. ' ' .. chan end
local function past(client, spans)
  local key = T .. ':past:' .. client
  redis.call('RPUSH', key, unpack(spans, math.max(1, #spans - 999)))
  redis.call('LTRIM', key, -1000, -1)
  redis.call('PEXPIRE', key, int(retain + 60000))
end

-- Make a client a member of a channel, by an entry in its log.
local function enroll(slot, client, chan)
  local _, n = append(slot, 0, 'j', chan, 'c', client)
  redis.call('HSET', T .. ':ch:' .. client, chan, int(n))
  redis.call('SADD', T .. ':mb:' .. chan, client)
  redis.call('HINCRBY', T .. ':cs:' .. chan, slot, 1)
  redis.call('HINCRBY', T .. ':chans', chan, 1)
end

-- Take a member out of the counts; its own record (ch:C) is the caller's.
local function uncount(slot, client, chan)
  redis.call('SREM', T .. ':mb:' .. chan, client)
  if redis.call('HINCRBY', T .. ':cs:' .. chan, slot, -1) <= 0 then redis.call('HDEL', T .. ':cs:' .. chan, slot) end
  if redis.call('HINCRBY', T .. ':chans', chan, -1) <= 0 then redis.call('HDEL', T .. ':chans', chan) end
end

local function event(kind, client, slot, meta)
  redis.call('XADD', T .. ':ev', 'MAXLEN', '~', 100000, '*', 'e', kind, 'c', client, 's', slot, 'm', meta)
end

-- The end of a client's presence: channels left, receipts decided, the offline event written. Once a client.
-- `work` counts what that was, for scripts that end many; at `enough` (some 5 ms) they leave the rest to another call. Of one
-- client's receipts what is more than that becomes due, for `sweep` to decide.
local work, enough = 0, 500
local function offline(client, slot, meta)
  redis.call('ZREM', T .. ':grace', client)
  redis.call('HDEL', T .. ':gm', client)
  redis.call('HDEL', T .. ':gp', client)
  if redis.call('SREM', T .. ':online', client) == 0 then return end
  local chans = redis.call('HGETALL', T .. ':ch:' .. client)
  if #chans > 0 then
    local _, n = split_id(redis.call('HGET', T .. ':last', slot) or '0-0')
    local spans = {}
    for i = 1, #chans, 2 do
      uncount(slot, client, chans[i])
      spans[#spans + 1] = span(chans[i], chans[i + 1], n + 1)
    end
    past(client, spans)
    redis.call('DEL', T .. ':ch:' .. client)
  end
  local pend = redis.call('ZRANGE', T .. ':pend:' .. client, 0, -1)
  for i = 1, #pend do
    if i <= enough then
      decide(client, pend[i], 'o')
    else
      redis.call('ZADD', T .. ':due', int(now_ms()), pend[i] .. '\n' .. client)
    end
  end
  work = work + 1 + #chans / 2 + math.min(#pend, enough)
  event('off', client, slot, meta)
end

-- sockets: sid -> "start\nmode\nms\nmetadata"
local function parse_socket(value)
  local start, mode, ms, meta = string.match(value, '^(.-)\n(.-)\n(.-)\n(.*)$')
  return start, mode, tonumber(ms), meta
end

-- Is id a before id b
local function before(a, b)
  local am, an = split_id(a)
  local bm, bn = split_id(b)
  return am < bm or (am == bm and an < bn)
end

-- Where a plain socket of a boot was: what the boot reported of the slot, if it knew the socket when it did; else where
-- the socket started. A report that is older than the socket says nothing about it.
local function reported(boot, n, slot, start)
  local upto, id = string.match(redis.call('HGET', T .. ':bp:' .. boot, slot) or '', '^(%d+) (.+)$')
  if not id or tonumber(n) > tonumber(upto) or before(id, start) then return start end
  return id
end

-- Where the client's next plain socket starts, if one that went within grace left a place; else nil.
local function kept_place(client)
  local pos, till = string.match(redis.call('HGET', T .. ':gp', client) or '', '^(.-)\n(%d+)$')
  if pos and (tonumber(till) > now_ms() or redis.call('ZSCORE', T .. ':grace', client)) then return pos end
end

-- Whether a client has a plain socket. It gets what any that went before has missed: each began where all those were
-- that were on record then, or earlier.
local function has_plain(client)
  local sockets = redis.call('HVALS', T .. ':sk:' .. client)
  for i = 1, #sockets do
    local _, mode = parse_socket(sockets[i])
    if mode == 'p' then return true end
  end
  return false
end

-- A socket of a client went away, a plain one at `pos`, another one with ''. The place of its last plain one is kept.
-- With the last socket grace starts, or presence ends at once when there is none; when too many go, at the next sweep.
local function socket_gone(client, slot, meta, grace, pos)
  if pos ~= '' and not has_plain(client) then
    local kept = kept_place(client)
    if kept and before(kept, pos) then pos = kept end
    redis.call('HSET', T .. ':gp', client, pos .. '\n' .. int(now_ms() + grace))
  end
  if redis.call('HLEN', T .. ':sk:' .. client) > 0 then return end
  redis.call('DEL', T .. ':sk:' .. client)
  if grace <= 0 and work < enough then return offline(client, slot, meta) end
  redis.call('ZADD', T .. ':grace', int(now_ms() + grace), client)
  redis.call('HSET', T .. ':gm', client, slot .. '\n' .. meta)
end
