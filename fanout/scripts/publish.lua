-- publish.lua: append events to rooms and send them to all nodes, atomically.
--
-- Publications that come together go through one call, whichever rooms they
-- are to: what a call costs by itself is then shared by all of them. To each
-- other they are as if each had been alone, one after the other.
--
-- KEYS for each publication: log (stream), meta (hash), channel, and one
--      idempotency key (string) for each event that has one, in order. Those of
--      one room share one hash tag; the channel is among the keys so that a
--      cluster, or an ACL, refuses a foreign one before anything is written.
-- ARGV 1 'PUBLISH' or 'SPUBLISH'  2 events to keep
--      3 ttl of the log that it has at least, ms  4 that it is given
--      5 ttl of meta, ms (longer than the log's and the keys')
--      6 ttl of idempotency keys, ms
--      7 a new epoch, should one begin: the number of the publication makes it
--        different from room to room
--      then for each publication how many events, and for each of those its
--      record and its mark: fingerprint|time, or '' without a key
-- RETURNS for each publication
--      epoch|number of each event, parted by blanks; of the earlier event where
--        a key was used before, epoch|number|time
--      ?i     the key of event i was used with another body
--      !text  an error
--      With the latter two, nothing of the publication is written.
--
-- Redis does not roll a script back, so all that can fail comes before a
-- publication's first write, which is XADD: it checks the type and is refused
-- for want of memory. An error leaves nothing behind, unless rights are taken
-- away between one command and the next. For that case the head is counted
-- directly after XADD, and PUBLISH is last: nobody is sent what is not counted,
-- and what was appended without being counted is not shown and goes.
local command, keep, least, longest = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])

-- The fence: the replication id is new at every restart of a primary and every
-- promotion. Either may have lost events behind the number we know, so a new
-- epoch goes on from there, and the lineage remembers where each one began.
local info = redis.pcall('INFO', 'replication')
local run = 'none'
if type(info) == 'string' then
  local _, at = string.find(info, 'master_replid:', 1, true)
  if at then run = string.match(info, '^%x+', at + 1) or run end
end

-- Adds an entry behind number seq - 1. Those that stand there already were
-- never counted, so nobody has seen them.
local function add(log, seq, epoch, record)
  local id = string.format('%.0f-0', seq)
  local answer = redis.pcall('XADD', log, 'MAXLEN', '~', keep, id, 'e', epoch, 'd', record)
  if type(answer) ~= 'table' then return end
  if not string.find(answer.err, 'equal or smaller', 1, true) then error(answer) end
  for _, entry in ipairs(redis.call('XRANGE', log, id, '+')) do redis.call('XDEL', log, entry[1]) end
  redis.call('XSETID', log, string.format('%.0f-0', seq - 1))
  redis.call('XADD', log, 'MAXLEN', '~', keep, id, 'e', epoch, 'd', record)
end

-- Appends a publication, whose keys begin at KEYS[key] and whose events are at
-- ARGV[first] up to ARGV[last], in pairs.
local function append(key, first, last, number)
  local log, meta, channel, idem = KEYS[key], KEYS[key + 1], KEYS[key + 2], key + 2
  local done, new = {}, false
  for i = first, last, 2 do
    local earlier, mark = false, ARGV[i + 1]
    if mark ~= '' then
      idem = idem + 1
      earlier = redis.call('GET', KEYS[idem])
    end
    if earlier then
      local fingerprint, position = string.match(earlier, '^(%x+)|(%w+|%d+|%d+)$')
      if fingerprint ~= string.match(mark, '^%x+') then return string.format('?%d', (i - first) / 2) end
      done[i] = position
    else
      new = true
    end
  end

  if new then
    local m = redis.call('HMGET', meta, 'epoch', 'seq', 'run', 'lineage')
    local epoch, seq, lineage = m[1], tonumber(m[2] or 0), m[4]
    local known = epoch and m[3] == run
    if not epoch then
      epoch = ARGV[7] .. number
      lineage = epoch .. ':1'
      -- Events whose numbering is lost belong to no history that anyone can follow.
      if redis.call('EXISTS', log) == 1 then redis.call('DEL', log) end
    elseif not known then
      epoch = ARGV[7] .. number
      lineage = lineage .. ',' .. epoch .. ':' .. string.format('%.0f', seq + 1)
      if #lineage > 800 then lineage = string.sub(lineage, string.find(lineage, ',', 1, true) + 1) end
    end
    local fresh, n = {}
    for i = first, last, 2 do
      if not done[i] then
        seq = seq + 1
        n = string.format('%.0f', seq)
        add(log, seq, epoch, ARGV[i])
        done[i], fresh[i] = epoch .. '|' .. n, true
      end
    end
    if known then
      redis.call('HSET', meta, 'seq', n)
    else
      redis.call('HSET', meta, 'epoch', epoch, 'seq', n, 'run', run, 'lineage', lineage)
    end
    idem = key + 2
    for i = first, last, 2 do
      local mark = ARGV[i + 1]
      if mark ~= '' then idem = idem + 1 end
      if mark ~= '' and fresh[i] then
        local fingerprint, time = string.match(mark, '^(%x+)(|%d+)$')
        redis.call('SET', KEYS[idem], fingerprint .. '|' .. done[i] .. time, 'PX', ARGV[6])
      end
    end
    -- The time to live is set anew once in a while rather than each time. A log
    -- that has none, since it is new, says -1.
    local left = redis.call('PTTL', log)
    if left < least or left > longest then
      redis.call('PEXPIRE', log, ARGV[4])
      redis.call('PEXPIRE', meta, ARGV[5])
    end
    for i = first, last, 2 do
      if fresh[i] then redis.call(command, channel, '1|' .. done[i] .. '|' .. ARGV[i]) end
    end
  end

  if first + 1 == last then return done[first] end
  local answer = {}
  for i = first, last, 2 do answer[#answer + 1] = done[i] end
  return table.concat(answer, ' ')
end

local answers, key, arg = {}, 1, 8
while key < #KEYS do
  local first, last = arg + 1, arg + 2 * tonumber(ARGV[arg])
  local ok, answer = pcall(append, key, first, last, #answers > 0 and #answers or '')
  if not ok then
    answer = type(answer) == 'table' and answer.err or tostring(answer)
    -- A server that only reads has written nothing of the whole call; as the
    -- call's own error this makes the client leave the connection.
    local readonly = string.match(answer, 'READONLY.*')
    if readonly then return redis.error_reply(readonly) end
    answer = '!' .. answer
  end
  answers[#answers + 1] = answer
  key = key + 3
  for i = first, last, 2 do
    if ARGV[i + 1] ~= '' then key = key + 1 end
  end
  arg = last + 1
end
return answers
