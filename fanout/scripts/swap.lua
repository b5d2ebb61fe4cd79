-- swap.lua: put a value in the place of another, if that is what is there.
--
-- KEYS 1 value
-- ARGV 1 what must be there ('' for nothing)  2 what to put there ('' to leave
--      nothing)  3 its ttl, ms
-- RETURNS 1 if that was done, else 0
local known = redis.call('GET', KEYS[1])
if (known or '') ~= ARGV[1] then return 0 end
if ARGV[2] ~= '' then
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
elseif known then
  redis.call('DEL', KEYS[1])
end
return 1
