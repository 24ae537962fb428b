-- Tells quotes to whoever listens, of each instrument only one that is newer than the last that was told.
--
-- KEYS[1]   hash: instrument -> time of its last quote, us since 1970
-- ARGV[1]   the hash lives so long without a quote, ms
-- ARGV[2]   the channel
-- ARGV[3]   when the quotes were written, us since 1970
-- then per quote: its instrument, its time (us) and its body
-- answer    how many were told
local lines = {'quotes ' .. ARGV[3]}
for at = 4, #ARGV, 3 do
  local last = redis.call('HGET', KEYS[1], ARGV[at])
  if not last or tonumber(ARGV[at + 1]) > tonumber(last) then
    redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1])
    lines[#lines + 1] = ARGV[at] .. ' ' .. ARGV[at + 2]
  end
end
if #lines > 1 then
  redis.call('PEXPIRE', KEYS[1], ARGV[1])
  redis.call('PUBLISH', ARGV[2], table.concat(lines, '\n'))
end
return #lines - 1
