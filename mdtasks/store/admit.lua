-- Whether one request to a provider may go now. One step: breaker, probe and all rates are looked at and taken together.
--
-- KEYS[1]     hash of the provider's health
-- KEYS[2]     the right to probe: held by one process while it has not run out
-- KEYS[3]     hash of its rates: t<i> -> theoretical arrival time (GCRA), pen -> until when the vendor said to wait, us
-- ARGV[1]     who asks
-- ARGV[2]     how long the right to probe lasts, ms
-- ARGV[3]     '1': ask although the circuit is open, for every other provider is out too
-- ARGV[4]     '1': only take the right to probe; no request is made yet
-- ARGV[5..]   of each rate: us between two requests, most requests at once
-- answer      {'go', 0}; {'probe', 0}: go, as the one that probes; {'wait', ms}: its rate, or the vendor, says so; {'open', ms}; {'paused', 0}
local now = redis.call('TIME')
local now_us = now[1] * 1000000 + now[2]
local health = redis.call('HMGET', KEYS[1], 'state', 'until_us', 'paused')
if health[3] then return {'paused', 0} end
local probes = (health[1] or 'closed') ~= 'closed' and ARGV[3] ~= '1'
if probes then
  local left_us = tonumber(health[2] or '0') - now_us
  if health[1] == 'open' and left_us > 0 then return {'open', math.ceil(left_us / 1000)} end
  local holder = redis.call('GET', KEYS[2])
  if holder and holder ~= ARGV[1] then return {'open', math.max(redis.call('PTTL', KEYS[2]), 1)} end
end
-- Taken only by who may go: one that must wait for the rate would keep the others from probing meanwhile.
local function go()
  if not probes then return {'go', 0} end
  redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
  if health[1] == 'open' then redis.call('HSET', KEYS[1], 'state', 'half_open') end
  return {'probe', 0}
end
if ARGV[4] == '1' then return go() end
local patience_us = tonumber(redis.call('HGET', KEYS[3], 'pen') or '0') - now_us
if patience_us > 0 then return {'wait', math.ceil(patience_us / 1000)} end
local arrivals, wait_us, live_us = {}, 0, 0
for i = 5, #ARGV, 2 do
  local gap_us, burst = tonumber(ARGV[i]), tonumber(ARGV[i + 1])
  local arrival = math.max(tonumber(redis.call('HGET', KEYS[3], 't' .. i) or '0'), now_us) + gap_us
  wait_us = math.max(wait_us, arrival - burst * gap_us - now_us)
  arrivals['t' .. i] = arrival
  live_us = math.max(live_us, arrival - now_us)
end
if wait_us > 0 then return {'wait', math.ceil(wait_us / 1000)} end
for name, arrival in pairs(arrivals) do redis.call('HSET', KEYS[3], name, string.format('%.0f', arrival)) end
if live_us > 0 then redis.call('PEXPIRE', KEYS[3], math.ceil(live_us / 1000) + 1000) end
return go()
