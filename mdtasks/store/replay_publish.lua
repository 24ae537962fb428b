-- Gives drafts their offsets, appends them to their streams and tells whoever listens, in one step. A bar that the stream
-- holds in the same or a later version, and one older than all that it has place for, is not told: so telling twice does
-- nothing. A stream that there is none of gets a birth token: who holds it fills it (replay_refill.lua). Begins with
-- replay_head.lua.
--
-- KEYS[i]   root of stream i
-- ARGV[1]   bars that a stream holds
-- ARGV[2]   entries that its log holds
-- ARGV[3]   a stream lives so long without an entry, ms
-- ARGV[4]   birth token, and how long it holds, ms, in ARGV[5]
-- ARGV[6]   the channel
-- ARGV[7]   when the oldest draft was written, us since 1970
-- then per stream: its name in the channel's lines, how many drafts, and for each its start (us), version and body
-- answer    per stream: how many entries it got; -1: there is none, fill it and come again
local max_bars, at, lines, answer = tonumber(ARGV[1]), 8, {'bars ' .. ARGV[7]}, {}

-- Whether a full set has nothing so old.
local function falls_out(set, ts)
  local oldest = redis.call('ZRANGE', set, 0, 0, 'WITHSCORES')[2]
  return oldest and tonumber(ts) < tonumber(oldest) and redis.call('ZCARD', set) >= max_bars
end

-- Whether the stream takes the draft; its place among the bars is free then.
local function takes(root, ts, version)
  local held = redis.call('ZRANGEBYSCORE', root .. ':bars', ts, ts)[1]
  if held then
    if tonumber(version) <= tonumber(string.match(held, '^%d+')) then return false end
    redis.call('ZREM', root .. ':bars', held)
    return true
  end
  if falls_out(root .. ':bars', ts) then return false end
  if version ~= '0' then return true end
  return not redis.call('ZSCORE', root .. ':quiet', ts) and not falls_out(root .. ':quiet', ts)
end

for i, root in ipairs(KEYS) do
  local name, count, head = ARGV[at], tonumber(ARGV[at + 1]), head_of(root, max_bars)
  at = at + 2
  if not head then
    forget(root)
    redis.call('HSET', root, 'birth', ARGV[4], 'run', run)
    redis.call('PEXPIRE', root, ARGV[5])
    at, answer[i] = at + 3 * count, -1
  else
    local epoch, offset, before = head[1], head[2], head[2]
    for _ = 1, count do
      local ts, version, body = ARGV[at], ARGV[at + 1], ARGV[at + 2]
      at = at + 3
      if takes(root, ts, version) then
        offset = offset + 1
        local id = string.format('%.0f', offset)
        redis.call('XADD', root .. ':log', 'MAXLEN', '=', ARGV[2], id .. '-0', 't', ts, 'b', body)
        local part = version == '0' and ':quiet' or ':bars'
        redis.call('ZADD', root .. part, ts, version == '0' and ts or version .. ' ' .. id .. ' ' .. body)
        redis.call('ZREMRANGEBYRANK', root .. part, 0, -1 - max_bars)
        lines[#lines + 1] = line(name, epoch, offset, ts, body)
      end
    end
    -- There may be more than it holds now, and no draft that it takes.
    redis.call('ZREMRANGEBYRANK', root .. ':bars', 0, -1 - max_bars)
    redis.call('HSET', root, 'offset', string.format('%.0f', offset), 'max', ARGV[1],
      'held', redis.call('ZCARD', root .. ':bars'))
    keep(root, ARGV[3])
    answer[i] = offset - before
  end
end
if #lines > 1 then redis.call('PUBLISH', ARGV[6], table.concat(lines, '\n')) end
return answer
