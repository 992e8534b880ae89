"""Shows sources over HTTP, for viewers and scripts. Needs aiohttp.

| module | what |
|-|-|
| `options` | the knobs |
| `answers` | what a plane is asked and gives; ranges, validators, caching, CORS |
| `guard` | host, token, path: what is answered at all |
| `registry` | the sources by name, opened once |
| `routes` | from a path to the plane that answers |
| `exchange` | one request of aiohttp: admission, time-out, failures, writing |
| `deadlines` | the time-outs of all requests |
| `app` | `Server`: start, stop, threads, signals |
| `workers` | several processes on one port |
| `raw` | the plane of stored objects as they are |
| `log` | what failed, without secrets |

A plane is one way to show a source; the others have a module each, see `routes`.
"""

from __future__ import annotations

from voxfetch.server.app import Server, serve
from voxfetch.server.options import ServerOptions

__all__ = ["Server", "ServerOptions", "serve"]
