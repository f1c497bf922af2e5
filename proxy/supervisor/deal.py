"""The script by which Redis deals out the caps of a fleet (see admission/stakes.py, which has the theory).

It knows of no time. KEYS[1] is the fleet's prefix; under it are `state` (generation, settled, run, rule), `beats` by member,
`held:MEMBER` by counter, `want:COUNTER` by member ("count stamp beyond"), and by counter `total` of what is held, `wishes`
of what is wanted, `beyond` of that what is more than is due, `parties` that have or want some; `whose:COUNTER` is, by
member, what they tell of their tenants (see admission/claims.py); `hungry` are the counters of which some is wanted. What
somebody lacks of what is due to it comes before what is only wanted, and of each the older of somebody who is not silent.
Whoever gives back in a request gets nothing by it.
"""

SCRIPT = """
local p, a = KEYS[1], cjson.decode(ARGV[1])
local call = redis.call
local state, beats, total, hungry = p .. 'state', p .. 'beats', p .. 'total', p .. 'hungry'
local wishes, parties, beyonds = p .. 'wishes', p .. 'parties', p .. 'beyond'

local function add(where, counter, change)
  if change ~= 0 and call('HINCRBY', where, counter, change) <= 0 then call('HDEL', where, counter) end
end

local function wish(member, counter)
  local said = call('HGET', p .. 'want:' .. counter, member)
  if not said then return 0, nil, 0 end
  local count, stamp, beyond = string.match(said, '(%d+) (%d+) ?(%d*)')
  return tonumber(count), tonumber(stamp), tonumber(beyond) or 0
end

local function put(member, counter, was, held, want, stamp, beyond)
  local wanted, _, before = wish(member, counter)
  if held > 0 then call('HSET', p .. 'held:' .. member, counter, held)
  elseif was > 0 then call('HDEL', p .. 'held:' .. member, counter) end
  local place = p .. 'want:' .. counter
  if want > 0 then
    call('HSET', place, member, want .. ' ' .. stamp .. ' ' .. beyond)
    call('SADD', hungry, counter)
  elseif wanted > 0 then
    call('HDEL', place, member)
    if call('EXISTS', place) == 0 then call('SREM', hungry, counter) end
  end
  add(total, counter, held - was)
  add(wishes, counter, want - wanted)
  add(beyonds, counter, beyond - before)
  local had, has = was > 0 or wanted > 0, held > 0 or want > 0
  if had ~= has then add(parties, counter, has and 1 or -1) end
  if had and not has then call('HDEL', p .. 'whose:' .. counter, member) end
end

local function drop(member)
  local held = call('HGETALL', p .. 'held:' .. member)
  for i = 1, #held, 2 do
    put(member, held[i], tonumber(held[i + 1]), 0, 0, 0, 0)
  end
  for _, counter in ipairs(call('SMEMBERS', hungry)) do
    if wish(member, counter) > 0 then put(member, counter, 0, 0, 0, 0, 0) end
  end
  call('HDEL', beats, member)
end

local run = string.match(call('INFO', 'server'), 'run_id:(%w+)')
local generation = call('HGET', state, 'generation')
if not generation or call('HGET', state, 'run') ~= run then
  for _, member in ipairs(call('HKEYS', beats)) do
    for _, counter in ipairs(call('HKEYS', p .. 'held:' .. member)) do call('DEL', p .. 'whose:' .. counter) end
    call('DEL', p .. 'held:' .. member)
  end
  for _, counter in ipairs(call('SMEMBERS', hungry)) do call('DEL', p .. 'want:' .. counter, p .. 'whose:' .. counter) end
  call('DEL', state, beats, total, hungry, wishes, parties, beyonds)
  generation = ARGV[2]
  call('HSET', state, 'generation', generation, 'run', run)
end

local function answer(status, rows, sought)
  local all, said = call('HGETALL', beats), {}
  for i = 1, #all, 2 do said[all[i]] = tonumber(all[i + 1]) end
  return cjson.encode({
    status = status, generation = generation, settled = call('HEXISTS', state, 'settled'),
    beats = next(said) and said or nil, rows = #rows > 0 and rows or nil, sought = #sought > 0 and sought or nil,
  })
end

local last = tonumber(call('HGET', beats, a.member) or 0)
if a.beat <= last then return answer('late', {}, {}) end
if a.leave then
  if last > 0 then drop(a.member) end
  return answer('gone', {}, {})
end
if a.generation ~= generation or (last == 0 and not a.join) then return answer('join', {}, {}) end
if a.join then drop(a.member) end
if call('HGET', state, 'rule') ~= a.rule then
  if call('HLEN', beats) > 0 then return answer('differs', {}, {}) end
  call('HSET', state, 'rule', a.rule)
end
call('HSET', beats, a.member, a.beat)
if a.settle then call('HSET', state, 'settled', 1) end
for _, other in ipairs(a.reap) do
  if other[1] ~= a.member and tonumber(call('HGET', beats, other[1]) or 0) == other[2] then drop(other[1]) end
end
local settled = call('HEXISTS', state, 'settled') == 1
local silent = {}
for _, member in ipairs(a.silent) do silent[member] = true end
local mine = p .. 'held:' .. a.member

local rows = {}
for i, row in ipairs(a.rows) do
  local counter, pool, held, want = row[1], row[2], row[3], row[4]
  local lacking = row[6]
  local was = tonumber(call('HGET', mine, counter) or 0)
  local _, stamp = wish(a.member, counter)
  local all = tonumber(call('HGET', total, counter) or 0) + held - was
  local now = held
  if want > 0 then
    if not stamp or held < was then stamp = call('HINCRBY', state, 'stamp', 1) end
    if settled and held >= was and all < pool then
      local first, free, most = pool - all, pool - all, math.max(want, math.floor((pool - all) / 8))
      local list = call('HKEYS', p .. 'want:' .. counter)
      for _, member in ipairs(list) do
        if member ~= a.member and not silent[member] then
          local n, s, beyond = wish(member, counter)
          most = want
          if s < stamp then first, free = first - n + beyond, free - n else free = free - n + beyond end
        end
      end
      local grant = math.max(0, math.min(lacking, first), math.min(most, free))
      now, want, all = held + grant, math.max(0, want - grant), all + grant
      lacking = math.max(0, lacking - grant)
    end
  end
  put(a.member, counter, was, now, want, stamp, math.max(0, want - lacking))
  local whose = p .. 'whose:' .. counter
  if row[5] and row[5] ~= '' and (now > 0 or want > 0) then call('HSET', whose, a.member, row[5])
  else call('HDEL', whose, a.member) end
  rows[i] = {counter, now, math.max(0, all - pool)}
end

local sought = {}
local list = call('SRANDMEMBER', hungry, 200)
if #list > 0 then
  local have = call('HMGET', mine, unpack(list))
  for i, counter in ipairs(list) do
    local own, _, beyond = wish(a.member, counter)
    if have[i] or own > 0 then
      local count = tonumber(call('HGET', wishes, counter) or 0) - own
      if count > 0 then
        local told = call('HGETALL', p .. 'whose:' .. counter)
        local lacking = math.max(0, count - tonumber(call('HGET', beyonds, counter) or 0) + beyond)
        sought[#sought + 1] = {counter, count, tonumber(call('HGET', parties, counter) or 1), #told > 0 and told, lacking}
      end
    end
  end
end
return answer('ok', rows, sought)
"""
