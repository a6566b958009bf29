-- orphans: boots that this group knows of: those that may record, and those whose reclaim is not finished.
-- Reply: {{boot, ...}, {dying boot, ...}}
return {redis.call('SMEMBERS', T .. ':boots'), redis.call('SMEMBERS', T .. ':dying')}
