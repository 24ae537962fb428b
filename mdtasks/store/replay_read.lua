-- What streams hold since a position, or all of it where that cannot be said. A stream that there is none of gets a birth
-- token, or tells the one that it has. Begins with replay_head.lua.
--
-- KEYS[i]   root of stream i
-- ARGV[1]   bars that a stream holds
-- ARGV[2]   birth token, and how long it holds, ms, in ARGV[3]
-- then per stream: the epoch ('': none) and the offset that its reader is at
-- answer    per stream: {'none', token}; {'since', epoch, offset, entries of the log after the reader's offset};
--           {'all', epoch, offset, the newest bars, each followed by its start}
local max_bars, answer = tonumber(ARGV[1]), {}
for i, root in ipairs(KEYS) do
  local epoch, since, head = ARGV[2 + 2 * i], tonumber(ARGV[3 + 2 * i]), head_of(root, max_bars)
  if not head then
    local birth, vouched = unpack(redis.call('HMGET', root, 'birth', 'run'))
    if not birth or vouched ~= run then
      forget(root)
      redis.call('HSET', root, 'birth', ARGV[2], 'run', run)
      redis.call('PEXPIRE', root, ARGV[3])
      birth = ARGV[2]
    end
    answer[i] = {'none', birth}
  else
    local offset, entries = string.format('%.0f', head[2]), nil
    if epoch == head[1] and since == head[2] then
      entries = {}
    elseif epoch == head[1] and since < head[2] then
      entries = redis.call('XRANGE', root .. ':log', string.format('%.0f-0', since + 1), '+')
      -- Without a hole: the first one is the next, or the log does not reach back so far.
      if not entries[1] or entries[1][1] ~= string.format('%.0f-0', since + 1) then entries = nil end
    end
    if entries then
      answer[i] = {'since', head[1], offset, entries}
    else
      answer[i] = {'all', head[1], offset, redis.call('ZRANGE', root .. ':bars', -max_bars, -1, 'WITHSCORES')}
    end
  end
end
return answer
