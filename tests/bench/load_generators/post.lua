-- wrk: posts the files BODY.0, BODY.1, ... in turn, so that no answer can come from a cache of one body, and prints
-- what was measured as one line of JSON.
local requests, count, at = {}, tonumber(os.getenv("BODIES")), 0

function init()
  local headers = { ["Content-Type"] = os.getenv("CONTENT_TYPE") }
  local json_length = os.getenv("JSON_LENGTH")
  if json_length then headers["Inference-Header-Content-Length"] = json_length end
  for number = 0, count - 1 do
    local file = assert(io.open(os.getenv("BODY") .. "." .. number, "rb"))
    requests[number] = wrk.format("POST", nil, headers, file:read("*a"))
    file:close()
  end
end

function request()
  at = (at + 1) % count
  return requests[at]
end

function done(summary, latency)
  local e = summary.errors
  io.write(string.format(
    '{"answers": %d, "seconds": %.6f, "failed": %d, "p50_us": %d, "p99_us": %d}\n',
    summary.requests, summary.duration / 1e6, e.status + e.connect + e.read + e.write + e.timeout,
    latency:percentile(50), latency:percentile(99)))
end
