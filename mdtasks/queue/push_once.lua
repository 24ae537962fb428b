-- Push those envelopes whose jobs were not pushed before, and remember them; both are one step.
--
-- KEYS[1]     the list that receives the envelopes
-- KEYS[2..]   of each envelope the key that says that its job was pushed
-- ARGV[1]     for how long a job is remembered, seconds
-- ARGV[2..]   envelopes, oldest first; one for each of KEYS[2..]
-- answer      of each envelope 1 when it was pushed, 0 when its job was known
local pushed = {}
for i = 2, #KEYS do
  pushed[i - 1] = 0
  if redis.call('SET', KEYS[i], 1, 'NX', 'EX', ARGV[1]) then
    redis.call('LPUSH', KEYS[1], ARGV[i])
    pushed[i - 1] = 1
  end
end
return pushed
