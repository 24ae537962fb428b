-- What one request, or the judgement of an answer, showed of a provider: kept, weighed into its means, and perhaps the
-- reason to demote or promote it. Decided here, in one step, so that each change happens once, whoever sees it.
--
-- KEYS[1]     hash of the provider's health
-- KEYS[2]     list of its samples, the newest first, each JSON
-- KEYS[3]     the right to probe
-- KEYS[4]     hash of its rates
-- KEYS[5]     list of transitions on their way to the record, each JSON with its case file
-- ARGV[1]     who tells
-- ARGV[2]     JSON: kind, sample, latency (its part, 0 to 1; absent: no request), completeness (absent: not judged),
--             wait_ms (what the vendor said to wait), rules {demote, promote, min_samples, cooldowns_ms [...]},
--             shares {latency, errors, completeness} summing to 1, weight, keep (samples), provider
-- answer      '' or the transition's kind
local told = cjson.decode(ARGV[2])
local now = redis.call('TIME')
local now_us = now[1] * 1000000 + now[2]
-- Milliseconds: cjson writes fourteen digits.
told.sample.at_ms = math.floor(now_us / 1000)
redis.call('LPUSH', KEYS[2], cjson.encode(told.sample))
redis.call('LTRIM', KEYS[2], 0, told.keep - 1)
if told.wait_ms then
  local until_us = now_us + told.wait_ms * 1000
  if until_us > tonumber(redis.call('HGET', KEYS[4], 'pen') or '0') then
    redis.call('HSET', KEYS[4], 'pen', string.format('%.0f', until_us))
    if redis.call('PTTL', KEYS[4]) < told.wait_ms + 1000 then redis.call('PEXPIRE', KEYS[4], told.wait_ms + 1000) end
  end
end
if told.kind ~= 'well' and told.kind ~= 'ill' then return '' end

local held = redis.call('HMGET', KEYS[1], 'state', 'latency', 'errors', 'completeness', 'run', 'opened', 'requests')
local state = held[1] or 'closed'
local ill, asked = told.kind == 'ill', told.latency ~= nil or told.kind == 'ill'
local part = {}
local function weigh(name, before, value)
  part[name] = tonumber(before or '1')
  if value ~= nil then part[name] = part[name] + told.weight * (value - part[name]) end
end
weigh('latency', held[2], ill and 0 or told.latency)
weigh('errors', held[3], asked and (ill and 0 or 1) or nil)
weigh('completeness', held[4], ill and 0 or told.completeness)
local run, opened = tonumber(held[5] or '0'), tonumber(held[6] or '0')
local requests = tonumber(held[7] or '0')
if asked then
  requests = requests + 1
  run = ill and 0 or run + 1
end
local evidence = told.shares.latency * part.latency + told.shares.errors * part.errors
  + told.shares.completeness * part.completeness

-- How often it has opened since it was last well, for the case file.
local change, openings = '', math.max(opened, 1)
if state == 'closed' and requests >= told.rules.min_samples and evidence < told.rules.demote then
  change, state, opened = 'demoted', 'open', 1
elseif state ~= 'closed' and run >= told.rules.min_samples and evidence >= told.rules.promote then
  change, state, opened = 'promoted', 'closed', 0
elseif state == 'half_open' and ill and (redis.call('GET', KEYS[3]) or ARGV[1]) == ARGV[1] then
  -- Only the one that probes: what others began before, or insisted on, says nothing new.
  state, opened = 'open', opened + 1
end
if state == 'open' and (change ~= '' or held[1] == 'half_open') then
  local pauses = told.rules.cooldowns_ms
  redis.call('HSET', KEYS[1], 'until_us', string.format('%.0f', now_us + 1000 * pauses[math.min(opened, #pauses)]))
  redis.call('DEL', KEYS[3])
elseif change == 'promoted' then
  redis.call('DEL', KEYS[3])
end
redis.call('HSET', KEYS[1], 'state', state, 'run', run, 'opened', opened, 'requests', requests,
  'latency', string.format('%.17g', part.latency), 'errors', string.format('%.17g', part.errors),
  'completeness', string.format('%.17g', part.completeness))
if change == '' then return '' end
redis.call('HSET', KEYS[1], 'since_us', string.format('%.0f', now_us))
local samples = {}
for _, sample in ipairs(redis.call('LRANGE', KEYS[2], 0, told.keep - 1)) do
  table.insert(samples, cjson.decode(sample))
end
redis.call('RPUSH', KEYS[5], cjson.encode({
  provider = told.provider, kind = change, at_us = string.format('%.0f', now_us), run = run, opened = openings,
  parts = part, rules = told.rules, samples = samples,
}))
return change
