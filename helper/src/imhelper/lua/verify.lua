-- verify: does the group still hold what a reader knew? ARGV: force (1|0), known incarnation, then slot, id, ...
-- If a log ends before what was read from it, Redis lost writes: the incarnation grows (once for all servers).
-- `force` says it for sure: after a failover nobody knows what the new primary never got.
-- Returns {incarnation, seconds that this Redis process is up, its run id, the id of its replication history and of the
-- one before, the last id of each slot asked for ...}.
local lost = ARGV[1] == '1'
local info = redis.call('INFO', 'server') .. redis.call('INFO', 'replication')
local reply = {''}
for _, name in ipairs({'uptime_in_seconds', 'run_id', 'master_replid', 'master_replid2'}) do
  reply[#reply + 1] = string.match(info, name .. ':(%w+)') or ''
end
for i = 3, #ARGV, 2 do
  local last = redis.call('HGET', T .. ':last', ARGV[i]) or '0-0'
  if before(last, ARGV[i + 1]) then lost = true end
  reply[#reply + 1] = last
end
local inc = redis.call('GET', T .. ':inc')
if not inc or (lost and inc == ARGV[2]) then
  local seconds = tonumber(redis.call('TIME')[1])
  local old = tonumber(inc or ARGV[2]) or 0
  if old >= seconds then seconds = old + 1 end
  inc = int(seconds)
  redis.call('SET', T .. ':inc', inc)
end
reply[1] = inc
return reply
