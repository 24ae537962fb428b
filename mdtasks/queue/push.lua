-- Push envelopes onto a queue as far as its cap allows; the check and the push are one step.
--
-- KEYS[1]     the list that receives the envelopes
-- KEYS[2..]   the queue's other priority lists, which count towards its depth
-- ARGV[1]     cap: most elements waiting over all the lists; -1: none
-- ARGV[2..]   envelopes, oldest first
-- answer      {how many were pushed (the first ones), depth afterwards}
local depth = 0
for _, list in ipairs(KEYS) do depth = depth + redis.call('LLEN', list) end
local cap = tonumber(ARGV[1])
local count = #ARGV - 1
if cap >= 0 then count = math.min(count, math.max(cap - depth, 0)) end
-- unpack is bounded by Lua's stack (about 8,000 values); the caller sends at most 500.
if count > 0 then redis.call('LPUSH', KEYS[1], unpack(ARGV, 2, count + 1)) end
return {count, depth + count}
