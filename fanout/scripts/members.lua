-- members.lua: who is in a room. Reads only; run it on the primary.
--
-- KEYS 1 nodes (sorted set)  2 users (hash)
-- ARGV 1 how many users are told by name
-- RETURNS generation ('' if nobody was here for long), number, count of users,
--      1 if the lease of a node has run out, then, unless there are more users
--      than that, the fields and values of users and of each node's hash
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local version = redis.call('HGET', KEYS[2], '')
if not version then return {'', '0', 0, 0} end
local generation, _, number = string.match(version, '^(%w+):(%w+):(%d+)$')
local count = redis.call('HLEN', KEYS[2]) - 1
local lapsed = redis.call('ZCOUNT', KEYS[1], '-inf', '(' .. string.format('%.0f', now))
local answer = {generation or '', number or '0', count, lapsed > 0 and 1 or 0}
if count > tonumber(ARGV[1]) then return answer end
answer[5] = redis.call('HGETALL', KEYS[2])
local prefix = string.sub(KEYS[2], 1, -#'users' - 1)
for _, node in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  answer[#answer + 1] = redis.call('HGETALL', prefix .. node)
end
return answer
