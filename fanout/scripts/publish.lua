-- publish.lua: append events to a room and send them to all nodes, atomically.
--
-- KEYS 1 log (stream)  2 meta (hash)  3 channel  4… one idempotency key
--      (string) for each event that has one, in order. All share one hash tag;
--      the channel is among the keys so that a cluster, or an ACL, refuses a
--      foreign one before anything is written.
-- ARGV 1 'PUBLISH' or 'SPUBLISH'  2 events to keep  3 ttl of the log, ms
--      4 ttl of meta, ms (longer than the log's and the keys')
--      5 a new epoch, should one begin  6 ttl of idempotency keys, ms
--      then for each event: record, fingerprint ('' without a key), time
-- RETURNS for each event: status, epoch, number, time
--      status 0 appended; 1 the key's earlier event; 2 the key was used with
--      another body, and nothing is written, for no event of this call
--
-- Redis does not roll a script back, so all that can fail comes before the
-- first write, which is XADD: it checks the type and is refused for want of
-- memory. An error leaves nothing behind.
local events = (#ARGV - 6) / 3
local replies, key = {}, 3
for i = 1, events do
  local fingerprint, at = ARGV[3 * i + 5], ARGV[3 * i + 6]
  replies[i] = {0, '', 0, at}
  if fingerprint ~= '' then
    key = key + 1
    local known = redis.call('GET', KEYS[key])
    if known then
      local f, e, n, t = string.match(known, '^(%x+)|(%w+)|(%d+)|(%d+)$')
      if f ~= fingerprint then return {2, e or '', tonumber(n) or 0, i - 1} end
      replies[i] = {1, e, tonumber(n), t}
    end
  end
end

-- The fence: the replication id is new at every restart of a primary and every
-- promotion. Either may have lost events behind the number we know, so a new
-- epoch goes on from there, and the lineage remembers where each one began.
local info = redis.pcall('INFO', 'replication')
local run = type(info) == 'string' and string.match(info, 'master_replid:(%x+)') or 'none'
local meta = redis.call('HMGET', KEYS[2], 'epoch', 'seq', 'run', 'lineage')
local epoch, seq, lineage = meta[1], tonumber(meta[2] or 0), meta[4]
local fresh = not epoch
if fresh then
  epoch, lineage = ARGV[5], ARGV[5] .. ':1'
elseif meta[3] ~= run then
  epoch = ARGV[5]
  lineage = lineage .. ',' .. epoch .. ':' .. string.format('%.0f', seq + 1)
  if #lineage > 800 then lineage = string.sub(lineage, string.find(lineage, ',', 1, true) + 1) end
end

local wrote = false
key = 3
for i = 1, events do
  local record, fingerprint, at = ARGV[3 * i + 4], ARGV[3 * i + 5], ARGV[3 * i + 6]
  if replies[i][1] == 0 then
    seq = seq + 1
    local n = string.format('%.0f', seq)
    if fresh and not wrote and redis.call('EXISTS', KEYS[1]) == 1 then
      -- Events whose numbering is lost belong to no history that anyone can follow.
      redis.call('DEL', KEYS[1])
    end
    wrote = true
    redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], n .. '-0', 'e', epoch, 'd', record)
    replies[i] = {0, epoch, seq, at}
    redis.call(ARGV[1], KEYS[3], '1|' .. epoch .. '|' .. n .. '|' .. record)
  end
end
if wrote then
  redis.call('HSET', KEYS[2], 'epoch', epoch, 'seq', string.format('%.0f', seq), 'run', run, 'lineage', lineage)
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
  redis.call('PEXPIRE', KEYS[2], ARGV[4])
end
local answer = {}
for i = 1, events do
  local fingerprint = ARGV[3 * i + 5]
  local r = replies[i]
  if fingerprint ~= '' then
    key = key + 1
    if r[1] == 0 then
      redis.call('SET', KEYS[key], fingerprint .. '|' .. r[2] .. '|' .. string.format('%.0f', r[3]) .. '|' .. r[4], 'PX', ARGV[6])
    end
  end
  for j = 1, 4 do answer[#answer + 1] = r[j] end
end
return answer
