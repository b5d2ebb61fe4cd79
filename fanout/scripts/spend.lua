-- spend.lua: take from a bucket that nodes share what one of them gave out. The
-- bucket is one number, the time at which it will be full, in microseconds by
-- this server's clock; one that is full is the same as none, and so expires.
--
-- KEYS 1 bucket
-- ARGV 1 what was given out, as the time in which it flows in again, us
--      2 the most that a bucket lacks, us
-- RETURNS how long the bucket needs to be full, us
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local lacks = math.max(0, (tonumber(redis.call('GET', KEYS[1])) or 0) - now)
lacks = math.min(lacks + ARGV[1], tonumber(ARGV[2]))
if lacks > 0 then
  redis.call('SET', KEYS[1], string.format('%.0f', now + lacks), 'PX', math.floor(lacks / 1000) + 1)
end
return lacks
