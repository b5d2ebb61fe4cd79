-- mark.lua: put a member on a list, with the time by this server's clock, which
-- all nodes share. What was marked too long ago goes.
--
-- KEYS 1 list (sorted set by milliseconds)
-- ARGV 1 member  2 how long marks stay, ms
-- RETURNS the time, ms
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call('ZADD', KEYS[1], string.format('%.0f', now), ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('(%.0f', now - ARGV[2]))
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return now
