-- What every script of the replay buffer begins with: of whom this Redis vouches, and how entries are told.
--
-- A stream lies under its root:
--   root        hash: epoch; offset of the last entry; born: the offset it began with; max: bars it may hold; held: those
--               that it holds; run: which run of the server vouches for it. Or only run and birth: the token of who may
--               fill it
--   root:log    stream of its last entries, ids OFFSET-0 without a hole
--   root:bars   sorted set of its newest bars, by start: "VERSION OFFSET BODY"
--   root:quiet  sorted set of the newest starts that were complete without a bar
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')

local function forget(root)
  redis.call('DEL', root, root .. ':log', root .. ':bars', root .. ':quiet')
end

-- {epoch, offset} of a stream that is whole and holds as many bars as are asked for; nil when it is not: its server
-- came back from an older state perhaps, or somebody took a part of it away.
local function head_of(root, max_bars)
  local epoch, vouched, offset, born, max, held =
    unpack(redis.call('HMGET', root, 'epoch', 'run', 'offset', 'born', 'max', 'held'))
  if not epoch or vouched ~= run or tonumber(max) < max_bars then return nil end
  offset, born = tonumber(offset), tonumber(born)
  if redis.call('ZCARD', root .. ':bars') ~= tonumber(held) then return nil end
  if offset > born then
    local last = redis.call('XREVRANGE', root .. ':log', '+', '-', 'COUNT', 1)[1]
    if not last or last[1] ~= string.format('%.0f-0', offset) then return nil end
  end
  return {epoch, offset}
end

-- Let a stream live for another while.
local function keep(root, ttl_ms)
  for _, part in ipairs({'', ':log', ':bars', ':quiet'}) do redis.call('PEXPIRE', root .. part, ttl_ms) end
end

local function line(name, epoch, offset, ts, body)
  return string.format('%s %s %.0f %s %s', name, epoch, offset, ts, body)
end
