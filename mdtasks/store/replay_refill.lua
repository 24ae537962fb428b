-- Begins streams with the newest bars of the store. Only who holds a stream's birth token does, whose reading of the store
-- is then younger than all that was published to nobody; a stream that there is already stays. The newest bar is told, so
-- that who followed the stream before hears of the new epoch. Begins with replay_head.lua.
--
-- KEYS[i]   root of stream i
-- ARGV[1]   bars that a stream holds
-- ARGV[2]   a stream lives so long without an entry, ms
-- ARGV[3]   the channel
-- then per stream: its birth token, its name in the channel's lines, how many bars, and for each, oldest first, its start
-- (us), version and body
-- answer    how many streams have begun
local now = redis.call('TIME')
local now_us = now[1] * 1000000 + now[2]
local at, lines, begun = 4, {string.format('bars %.0f', now_us)}, 0
for _, root in ipairs(KEYS) do
  local token, name, count = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
  local first = at + 3
  at = first + 3 * count
  local birth, vouched = unpack(redis.call('HMGET', root, 'birth', 'run'))
  if birth == token and vouched == run then
    -- A token may come twice to a stream, in a call that was repeated late; an epoch may not.
    local epoch = string.format('%s%x', token, now_us)
    local born = string.format('%.0f', count)
    forget(root)
    redis.call('HSET', root, 'epoch', epoch, 'offset', born, 'born', born, 'max', ARGV[1], 'held', born,
      'run', run)
    for offset = 1, count do
      local k = first + 3 * (offset - 1)
      local member = string.format('%s %.0f %s', ARGV[k + 1], offset, ARGV[k + 2])
      redis.call('ZADD', root .. ':bars', ARGV[k], member)
      if offset == count then lines[#lines + 1] = line(name, epoch, offset, ARGV[k], ARGV[k + 2]) end
    end
    keep(root, ARGV[2])
    begun = begun + 1
  end
end
if #lines > 1 then redis.call('PUBLISH', ARGV[3], table.concat(lines, '\n')) end
return begun
