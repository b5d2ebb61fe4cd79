-- purge.lua: delete a room's events and begin a new epoch, whose numbers go on
-- from the old one's, so that no number ever stands for two events.
--
-- KEYS 1 log (stream)  2 meta (hash)  3 channel
-- ARGV 1 'PUBLISH' or 'SPUBLISH'  2 ttl of meta, ms  3 the new epoch
-- RETURNS epoch ('' if there is no history), head
local meta = redis.call('HMGET', KEYS[2], 'epoch', 'seq', 'lineage')
if not meta[1] then return {'', 0} end
local info = redis.pcall('INFO', 'replication')
local run = type(info) == 'string' and string.match(info, 'master_replid:(%x+)') or 'none'
local seq = tonumber(meta[2])
local lineage = meta[3] .. ',' .. ARGV[3] .. ':' .. string.format('%.0f', seq + 1) .. 'p'
if #lineage > 800 then lineage = string.sub(lineage, string.find(lineage, ',', 1, true) + 1) end
redis.call('HSET', KEYS[2], 'epoch', ARGV[3], 'run', run, 'lineage', lineage)
redis.call('PEXPIRE', KEYS[2], ARGV[2])
redis.call('DEL', KEYS[1])
redis.call(ARGV[1], KEYS[3], '2|')
return {ARGV[3], seq}
