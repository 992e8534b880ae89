-- Asks for a list of paths, again and again: wrk -s load.lua URL -- LIST
-- A line of the list is a path and, after a tab, the value of a Range header or nothing. All requests are made before
-- the first is sent. The last line of the output is JSON; times are in seconds.

local requests = {}
local at = 0

function init(args)
   for line in io.lines(args[1]) do
      local path, range = line:match("^([^\t]*)\t?(.*)$")
      local headers = nil
      if range ~= "" then headers = { Range = range, Host = wrk.headers["Host"] } end
      requests[#requests + 1] = wrk.format("GET", path, headers)
   end
end

function request()
   at = at % #requests + 1
   return requests[at]
end

function done(summary, latency)
   local errors = summary.errors
   io.write(string.format(
      '\n{"requests": %d, "bytes": %.0f, "seconds": %.6f, "p50_s": %.6f, "p99_s": %.6f, "refused": %d, "broken": %d}\n',
      summary.requests, summary.bytes, summary.duration / 1e6,
      latency:percentile(50) / 1e6, latency:percentile(99) / 1e6,
      errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
