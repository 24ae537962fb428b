-- Tells of the policy's newest version: the key that every process looks at, and a word to whoever listens.
--
-- KEYS[1]  the version that was told of last
-- ARGV[1]  the version to tell of
-- ARGV[2]  '': somebody made this version, so the key never goes back. Else what the key held (-1: nothing) before this
--          version was read in PostgreSQL: the key becomes it, also backwards, unless it changed meanwhile
-- ARGV[3]  the channel
-- answer   1: the key holds it now and was changed; 0: nothing was changed
local held = redis.call('GET', KEYS[1]) or '-1'
if ARGV[2] == '' then
  if tonumber(held) and tonumber(held) >= tonumber(ARGV[1]) then return 0 end
elseif held ~= ARGV[2] and tonumber(held) then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1])
redis.call('PUBLISH', ARGV[3], ARGV[1])
return 1
