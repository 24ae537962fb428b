-- Take elements from an outside coordinator's lists into what this intake holds, and what dead intakes held along with
-- it. One step: an element is in a list or held, at any moment, and held by one intake.
--
-- KEYS[1]     sorted set of leases: intake -> until when it counts as alive, seconds of Redis' clock
-- KEYS[2]     hash of what this intake holds: token -> '<list> <element>'
-- KEYS[3..]   the coordinator's lists; the right end is the oldest
-- ARGV[1]     this intake's name
-- ARGV[2]     its lease, seconds
-- ARGV[3]     most elements that it shall hold
-- ARGV[4]     what the tokens of this call begin with; never used before
-- ARGV[5]     what the names of the hashes begin with
-- ARGV[6..]   of each of KEYS[3..] the name that its elements are held under
-- answer      all that this intake holds: {token, '<list> <element>', token, ...}
local now = tonumber(redis.call('TIME')[1])
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[1])
for _, dead in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. now)) do
  -- Not among KEYS: who has died is known only here. These lists are not for a cluster of Redis servers.
  local held = redis.call('HGETALL', ARGV[5] .. dead)
  for i = 1, #held, 2 do redis.call('HSET', KEYS[2], held[i], held[i + 1]) end
  redis.call('DEL', ARGV[5] .. dead)
  redis.call('ZREM', KEYS[1], dead)
end
local room = tonumber(ARGV[3]) - redis.call('HLEN', KEYS[2])
local number = 0
-- Each list its share first, so that a full one does not keep the others waiting; then whatever there is.
for _, share in ipairs({math.ceil(room / (#KEYS - 2)), room}) do
  for i = 3, #KEYS do
    local count = math.min(share, room - number)
    local taken = count > 0 and redis.call('RPOP', KEYS[i], count) or {}
    for _, element in ipairs(taken) do
      number = number + 1
      local token = ARGV[4] .. string.format('%05d', number)
      redis.call('HSET', KEYS[2], token, ARGV[i + 3] .. ' ' .. element)
    end
  end
end
return redis.call('HGETALL', KEYS[2])
