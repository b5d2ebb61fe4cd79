-- resume.lua: what a room's log has behind a number. Reads only; run it on the
-- primary, since a replica may be behind.
--
-- KEYS 1 log (stream)  2 meta (hash)
-- ARGV 1 number behind which to begin; negative counts back from the head
--      2 how many at most (0: none)  3 events that the log is to keep
--      4 bytes after which it is enough
-- RETURNS epoch ('' if there is no history), head, lineage, oldest number that
--      is kept (head + 1 if none is), 1 if the server has restarted or changed
--      since the newest event, else 0, then number, epoch, record of each event
local meta = redis.call('HMGET', KEYS[2], 'epoch', 'seq', 'run', 'lineage')
if not meta[1] then return {'', 0, '', 1, 0} end
local head, keep = tonumber(meta[2]), tonumber(ARGV[3])
local info = redis.pcall('INFO', 'replication')
local run = type(info) == 'string' and string.match(info, 'master_replid:(%x+)') or 'none'

-- Trimming is approximate, so the log has more than it is to keep. What is
-- shown is exact, or it would depend on the server's settings. What stands
-- behind the head was never counted, and is not shown either. The log may also
-- have lost its beginning, or (an expired key) everything.
local function number(entry) return tonumber(string.match(entry[1], '^%d+')) end
local oldest = head + 1
local first = redis.call('XRANGE', KEYS[1], string.format('%.0f', math.max(1, head - keep + 1)) .. '-0', '+', 'COUNT', 1)
if first[1] then oldest = number(first[1]) end
-- The lineage remembers only so many epochs. Events of those before it could
-- not be told from another history's, so they count as deleted.
oldest = math.max(oldest, tonumber(string.match(meta[4], ':(%d+)')))

local answer = {meta[1], head, meta[4], oldest, meta[3] == run and 0 or 1}
local after, limit, room = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[4])
if after < 0 then after = math.max(0, head + after) end
local next = math.max(after + 1, oldest)
while limit > 0 and room > 0 and next <= head do
  local entries = redis.call('XRANGE', KEYS[1], string.format('%.0f', next) .. '-0', '+', 'COUNT', math.min(limit, 64))
  if #answer == 5 then
    -- Somebody may have deleted from the middle: what is kept begins behind that.
    if #entries == 0 then answer[4] = head + 1 break end
    next = number(entries[1])
    answer[4] = math.max(oldest, next > after + 1 and next or oldest)
  end
  if #entries == 0 then break end
  for _, entry in ipairs(entries) do
    local n, fields = number(entry), entry[2]
    if n ~= next or n > head or room <= 0 then return answer end
    answer[#answer + 1] = n
    answer[#answer + 1] = fields[2]
    answer[#answer + 1] = fields[4]
    room, limit, next = room - #fields[4], limit - 1, next + 1
  end
end
return answer
