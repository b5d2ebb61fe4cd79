-- presence.lua: what a node says of a room's members on it, and what follows
-- from that for the room. It also renews the node's lease, and takes the
-- members of nodes whose lease has run out away from them.
--
-- KEYS 1 nodes: sorted set of the nodes that have members, by the millisecond
--        of this server's clock in which their leases end
--      2 users: hash of a user to "nodes it is on|since when it is here"; its
--        field '' is the roster's version, "generation:run:number"
--      3 own: hash of a user on this node to "streams|at|info"; its field ''
--        is the revision, which fences commands that come late
--      4 channel
-- ARGV 1 'PUBLISH' or 'SPUBLISH'  2 the node, '' if it has no members of its
--      own and only looks after leases  3 a lease, ms  4 ttl of the keys, ms
--      5 how many users are told by name  6 the revision to build upon
--      7 the revision that this makes, if there are changes
--      8 a generation, should one begin  9 how many members of nodes whose
--        lease is over may leave at once; 0: no node is judged
--      then for each change: 'set', 'gone' (after its grace) or 'bye' (at
--        once, for ever), user, record ('' unless set)
-- RETURNS generation, number, count of users, 1 if the revision was another so
--      that nothing was done, the revision, 1 if leases are left to look after
--
-- The hashes of other nodes lie beside one's own: same room, same hash tag.
local publish, node, lease, ttl = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local named, budget = tonumber(ARGV[5]), tonumber(ARGV[9])
local prefix = string.sub(KEYS[2], 1, -#'users' - 1)
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local function decimal(n) return string.format('%.0f', n) end

local version = redis.call('HGET', KEYS[2], '') or ''
local generation, was, number = string.match(version, '^(%w+):(%w+):(%d+)$')
number = tonumber(number or 0)
local function count()
  return redis.call('HLEN', KEYS[2]) - redis.call('HEXISTS', KEYS[2], '')
end

-- The revision is another where Redis has lost something, or others have ended
-- this node's lease. The node then looks what is kept of it, and tells the rest.
local revision = ''
if node ~= '' then
  revision = redis.call('HGET', KEYS[3], '') or ''
  if revision ~= ARGV[6] then
    return {generation or '', decimal(number), count(), 1, revision, 0}
  end
end

local crowd = false
local function tell(kind, user, info)
  number = number + 1
  local users = count()
  if users > named then crowd = true return end
  redis.call(publish, KEYS[4], '3|' .. generation .. '|' .. decimal(number) .. '|' .. users .. '|' .. kind .. '|' .. #user .. '|' .. user .. info)
end

local function counted(user) return string.match(redis.call('HGET', KEYS[2], user) or '', '^(%d+)|(%d+)$') end

local function enter(user)
  local nodes, since = counted(user)
  redis.call('HSET', KEYS[2], user, decimal((nodes or 0) + 1) .. '|' .. (since or decimal(now)))
  return not nodes
end

local function leave(key, user)
  local record = redis.call('HGET', key, user)
  if not record then return end
  redis.call('HDEL', key, user)
  local nodes, since = counted(user)
  if nodes and tonumber(nodes) > 1 then
    redis.call('HSET', KEYS[2], user, decimal(nodes - 1) .. '|' .. since)
  elseif nodes then
    redis.call('HDEL', KEYS[2], user)
    tell('l', user, string.match(record, '^%d+|%d+|(.*)$') or '')
  end
end

-- rebuild counts anew who is here, where one of the keys was lost. Nodes that
-- meet another generation compare it with what they have told their streams.
local function rebuild()
  generation = ARGV[8]
  redis.call('DEL', KEYS[2])
  for _, other in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
    for _, user in ipairs(redis.call('HKEYS', prefix .. other)) do
      if user ~= '' then enter(user) end
    end
  end
end

local info = redis.pcall('INFO', 'replication')
local run = type(info) == 'string' and string.match(info, 'master_replid:(%x+)') or 'none'
local mine = node ~= '' and redis.call('ZSCORE', KEYS[1], node)
if not generation then
  rebuild()
elseif mine and redis.call('EXISTS', KEYS[3]) == 0 then
  redis.call('ZREM', KEYS[1], node)
  rebuild()
elseif was ~= run then
  -- This server has restarted, or was promoted: numbers may have been lost, and
  -- no node could renew its lease meanwhile.
  generation = ARGV[8]
  for _, other in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
    redis.call('ZADD', KEYS[1], 'GT', decimal(now + lease), other)
  end
end

for i = 10, #ARGV, 3 do
  local verb, user, record = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  if verb == 'set' then
    if redis.call('HSET', KEYS[3], user, record) == 1 and enter(user) then
      tell('j', user, string.match(record, '^%d+|%d+|(.*)$') or '')
    end
  else
    leave(KEYS[3], user)
    if verb == 'bye' then
      -- Where the user's streams have ended, no grace is left to wait for.
      for _, other in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
        local kept = redis.call('HGET', prefix .. other, user)
        if kept and string.sub(kept, 1, 2) == '0|' then leave(prefix .. other, user) end
      end
    end
  end
end

-- Who was late itself cannot tell who else is: perhaps none of us could get here.
local more = 0
if node ~= '' and (not mine or tonumber(mine) < now) then budget = 0 end
if budget > 0 then
  for _, other in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. decimal(now))) do
    local key = prefix .. other
    if other == node then
      -- Its lease is renewed below.
    elseif budget <= 0 then
      more = 1
    elseif redis.call('EXISTS', key) == 0 then
      redis.call('ZREM', KEYS[1], other)
      rebuild()
    else
      redis.call('HDEL', key, '')
      for _, user in ipairs(redis.call('HRANDFIELD', key, budget)) do
        leave(key, user)
        budget = budget - 1
      end
      if redis.call('EXISTS', key) == 0 then redis.call('ZREM', KEYS[1], other) else more = 1 end
    end
  end
end

if node ~= '' then
  if #ARGV > 9 then
    revision = ARGV[7]
    redis.call('HSET', KEYS[3], '', revision)
  end
  if redis.call('HLEN', KEYS[3]) > 1 then
    redis.call('ZADD', KEYS[1], decimal(now + lease), node)
    redis.call('PEXPIRE', KEYS[3], ttl)
  else
    revision = ''
    redis.call('DEL', KEYS[3])
    redis.call('ZREM', KEYS[1], node)
  end
end
local users = count()
if crowd then
  redis.call(publish, KEYS[4], '3|' .. generation .. '|' .. decimal(number) .. '|' .. users .. '|c|0|')
end
redis.call('HSET', KEYS[2], '', generation .. ':' .. run .. ':' .. decimal(number))
redis.call('PEXPIRE', KEYS[1], ttl)
redis.call('PEXPIRE', KEYS[2], ttl)
return {generation, decimal(number), users, 0, revision, more}
