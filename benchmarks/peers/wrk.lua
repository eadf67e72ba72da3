-- What wrk does for `python -m benchmarks peers`: it sends whole requests that lie in files, and keeps every answer.
--   IN_TURN=0|1 FOUND=FILE wrk … URL -- FOLDER FIRST
-- FOLDER holds 1.request, 2.request, …; what was found is written to FILE. IN_TURN=1, for one connection, sends one after
-- the other. Else each thread sends one of them, FIRST its number in the first thread: wrk does not tell a script which
-- connection an answer came over, and so it is known all the same which request it is an answer to.
-- Answers are counted by their bytes: what is the same is judged once, by whoever reads FILE.
-- What `done` reads of a thread are numbers and hexadecimal strings in global variables: wrk 4's thread:get() of a table
-- takes one value too many off the thread's stack, which ends in a segmentation fault, and cuts strings at a zero byte.

local threads = {}
local most = 20000 -- different answers of a thread: more is no answer any more, and would fill the memory

local function hex(text)
  return (text:gsub(".", function(c) return string.format("%02x", c:byte()) end))
end

function setup(thread)
  thread:set("number", #threads)
  table.insert(threads, thread)
end

function init(args)
  local folder, first = args[1], tonumber(args[2])
  requests, places = {}, {}
  local file = io.open(folder .. "/1.request", "rb")
  while file do
    table.insert(requests, file:read("*a"))
    table.insert(places, {})
    file:close()
    file = io.open(folder .. "/" .. (#requests + 1) .. ".request", "rb")
  end
  sent, different, refused_status = 0, 0, 0
  fixed = os.getenv("IN_TURN") ~= "1" and (first - 1 + number) % #requests + 1
end

function request()
  sent = sent + 1
  return requests[fixed or (sent - 1) % #requests + 1]
end

function response(status, headers, body)
  if status ~= 200 then
    refused_status, refused_body = status, hex(body)
    return
  end
  local of = fixed or (sent - 1) % #requests + 1 -- one connection: the last that was sent
  local count = places[of][body]
  if not count then
    different = different + 1
    if different > most then
      error("too many different answers")
    end
    count = "count" .. different
    places[of][body], _G[count] = count, 0
    _G["of" .. different], _G["body" .. different] = of, hex(body)
  end
  _G[count] = _G[count] + 1
end

function done(summary, latency, rates)
  local file = io.open(os.getenv("FOUND"), "w")
  local errors = summary.errors
  file:write(string.format("summary %d %d %d %d %d %d %d\n", summary.duration, summary.requests, errors.connect,
    errors.read, errors.write, errors.timeout, errors.status))
  for _, thread in ipairs(threads) do
    for place = 1, thread:get("different") do
      local of, count, body = thread:get("of" .. place), thread:get("count" .. place), thread:get("body" .. place)
      file:write(string.format("answer %d %d %s\n", of, count, body))
    end
    if thread:get("refused_status") > 0 then
      file:write(string.format("refused %d %s\n", thread:get("refused_status"), thread:get("refused_body")))
    end
  end
  for place = 1, #latency do
    local value, count = latency(place)
    file:write(string.format("latency %d %d\n", value, count))
  end
  file:close()
end
