-- What wrk does for `python -m benchmarks peers`: it sends whole requests that lie in files, and keeps every answer.
--   wrk … URL -- FOLDER FIRST
-- FOLDER holds 1.request … COUNT.request and gets `found`. With one connection the requests are sent in turn. With
-- more, each thread sends one of them, FIRST its number in the first thread: wrk does not tell a script which
-- connection an answer came over, and so it is known all the same which request it is an answer to.
-- Answers are counted by their bytes: what is the same is judged once, by whoever reads `found`.

local threads = {}
local most = 20000 -- different answers of a thread: more is no answer any more, and would fill the memory

function setup(thread)
  thread:set("number", #threads)
  table.insert(threads, thread)
end

function init(args)
  local folder, first = args[1], tonumber(args[2])
  requests, seen, refused = {}, {}, {}
  local file = io.open(folder .. "/1.request", "rb")
  while file do
    table.insert(requests, file:read("*a"))
    file:close()
    file = io.open(folder .. "/" .. (#requests + 1) .. ".request", "rb")
  end
  for place = 1, #requests do
    seen[place] = {}
    _G["seen" .. place] = seen[place] -- wrk's thread:get() ends with a table that holds tables
  end
  count = #requests
  sent, different = 0, 0
  fixed = os.getenv("IN_TURN") ~= "1" and (first - 1 + number) % #requests + 1
end

function request()
  sent = sent + 1
  return requests[fixed or (sent - 1) % #requests + 1]
end

function response(status, headers, body)
  local of = fixed or (sent - 1) % #requests + 1 -- one connection: the last that was sent
  if status ~= 200 then
    refused[status] = body
    return
  end
  local answers = seen[of]
  local count = answers[body]
  if not count then
    different = different + 1
    if different > most then
      error("too many different answers")
    end
    count = 0
  end
  answers[body] = count + 1
end

local function hex(text)
  return (text:gsub(".", function(c) return string.format("%02x", c:byte()) end))
end

function done(summary, latency, rates)
  local file = io.open(os.getenv("FOUND"), "w")
  local errors = summary.errors
  file:write(string.format("summary %d %d %d %d %d %d %d\n", summary.duration, summary.requests, errors.connect,
    errors.read, errors.write, errors.timeout, errors.status))
  for _, thread in ipairs(threads) do
    for of = 1, thread:get("count") do
      for body, count in pairs(thread:get("seen" .. of)) do
        file:write(string.format("answer %d %d %s\n", of, count, hex(body)))
      end
    end
    for status, body in pairs(thread:get("refused")) do
      file:write(string.format("refused %d %s\n", status, hex(body)))
    end
  end
  for place = 1, #latency do
    local value, count = latency(place)
    file:write(string.format("latency %d %d\n", value, count))
  end
  file:close()
end
