"""The script by which Redis deals out the caps of a fleet (see admission/stakes.py, which has the theory).

It knows of no time. KEYS[1] is the fleet's prefix; under it are `state` (generation, settled, run, rule), `beats` by member,
`total` by counter, `held:MEMBER` by counter, `want:COUNTER` by member ("count stamp"), and `hungry`, the counters that
have wants. An older want of somebody who is not silent comes first. Whoever gives back in a request gets nothing by it.
"""

SCRIPT = """
local p, a = KEYS[1], cjson.decode(ARGV[1])
local call = redis.call
local state, beats, total, hungry = p .. 'state', p .. 'beats', p .. 'total', p .. 'hungry'

local function sum(counter, change)
  if change ~= 0 and call('HINCRBY', total, counter, change) <= 0 then call('HDEL', total, counter) end
end

local function unwant(counter, member)
  if call('HDEL', p .. 'want:' .. counter, member) == 1 and call('EXISTS', p .. 'want:' .. counter) == 0 then
    call('SREM', hungry, counter)
  end
end

local function drop(member)
  local held = call('HGETALL', p .. 'held:' .. member)
  for i = 1, #held, 2 do sum(held[i], -tonumber(held[i + 1])) end
  call('DEL', p .. 'held:' .. member)
  call('HDEL', beats, member)
  for _, counter in ipairs(call('SMEMBERS', hungry)) do unwant(counter, member) end
end

local run = string.match(call('INFO', 'server'), 'run_id:(%w+)')
local generation = call('HGET', state, 'generation')
if not generation or call('HGET', state, 'run') ~= run then
  for _, member in ipairs(call('HKEYS', beats)) do call('DEL', p .. 'held:' .. member) end
  for _, counter in ipairs(call('SMEMBERS', hungry)) do call('DEL', p .. 'want:' .. counter) end
  call('DEL', state, beats, total, hungry)
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
  local before = tonumber(call('HGET', mine, counter) or 0)
  sum(counter, held - before)
  local all = tonumber(call('HGET', total, counter) or 0)
  local wants = p .. 'want:' .. counter
  if want > 0 then
    local stamp
    local said = call('HGET', wants, a.member)
    if said then stamp = tonumber(string.match(said, ' (%d+)')) end
    if not stamp or held < before then stamp = call('HINCRBY', state, 'stamp', 1) end
    local free, others = pool - all, 0
    local list = call('HGETALL', wants)
    for k = 1, #list, 2 do
      if list[k] ~= a.member and not silent[list[k]] then
        local n, s = string.match(list[k + 1], '(%d+) (%d+)')
        others = others + tonumber(n)
        if tonumber(s) < stamp then free = free - tonumber(n) end
      end
    end
    if settled and held >= before and free > 0 then
      local most = want
      if others == 0 then most = math.max(want, math.floor(free / 8)) end
      local grant = math.min(most, free)
      held, want = held + grant, want - grant
      sum(counter, grant)
      all = all + grant
    end
    if want > 0 then
      call('HSET', wants, a.member, want .. ' ' .. stamp)
      call('SADD', hungry, counter)
    end
  end
  if want <= 0 then unwant(counter, a.member) end
  if held > 0 then call('HSET', mine, counter, held) else call('HDEL', mine, counter) end
  rows[i] = {counter, held, math.max(0, all - pool)}
end

local sought = {}
local members = call('HKEYS', beats)
for _, counter in ipairs(call('SRANDMEMBER', hungry, 500)) do
  if call('HEXISTS', mine, counter) == 1 then
    local count, parties = 0, 1
    local list, wanting = call('HGETALL', p .. 'want:' .. counter), {}
    for k = 1, #list, 2 do
      if list[k] ~= a.member and not silent[list[k]] then
        count = count + tonumber(string.match(list[k + 1], '(%d+)'))
        wanting[list[k]] = true
      end
    end
    for _, member in ipairs(members) do
      if member ~= a.member and (wanting[member] or call('HEXISTS', p .. 'held:' .. member, counter) == 1) then
        parties = parties + 1
      end
    end
    if count > 0 then sought[#sought + 1] = {counter, count, parties} end
  end
end
return answer('ok', rows, sought)
"""
