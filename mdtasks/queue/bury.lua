-- Move a delivered message to the dead letters in one step: there is no moment in which it is in neither place.
--
-- KEYS[1]  unacked        hash of delivered messages by delivery tag
-- KEYS[2]  unacked_index  sorted set of delivery tags by time of delivery
-- KEYS[3]  dlq            list of letters
-- ARGV[1]  delivery tag
-- ARGV[2]  letter: the envelope of a mdtasks.dead_letter task that wraps the message
-- answer   1 when buried; 0 when the message is no longer ours (already acknowledged, buried or restored)
local held = redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
if held == 1 then redis.call('LPUSH', KEYS[3], ARGV[2]) end
return held
