"""A TCP proxy that makes a good connection bad: slow, cut, reset or silent.

The attributes may be changed while it runs; they hold for bytes that pass afterwards.
"""

from __future__ import annotations

import asyncio

from tests.servers import ThreadedServer, reset


class Proxy(ThreadedServer):
    """Passes connections on to a port of this machine.

    `latency_s`: each piece of a reply arrives so much later. `bandwidth`: bytes per second of a reply.
    `limit_data`: a connection is closed after so many bytes of replies. `reset_after`: the same, with RST.
    `blackhole`: bytes are swallowed in both directions, and the connection stays open. `refuse`: a new connection is
    reset at once.
    """

    def __init__(self, port, *, latency_s=0, bandwidth=None, limit_data=None, reset_after=None):
        super().__init__()
        self._target = port
        self.latency_s = latency_s
        self.bandwidth = bandwidth
        self.limit_data = limit_data
        self.reset_after = reset_after
        self.blackhole = False
        self.refuse = False
        self._open = set()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def reset_all(self):
        """Resets every connection that is open now."""

        def run():
            for writer in list(self._open):
                reset(writer)

        self.call(run)

    async def handle(self, reader, writer):
        if self.refuse:
            reset(writer)
            return
        there, back = await asyncio.open_connection("127.0.0.1", self._target)
        self._open.add(writer)
        tasks = [asyncio.ensure_future(self._up(reader, back)), asyncio.ensure_future(self._down(there, writer))]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._open.discard(writer)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            back.close()

    async def _up(self, reader, writer):
        while part := await reader.read(1 << 16):
            if not self.blackhole:
                writer.write(part)
                await writer.drain()

    async def _down(self, reader, writer):
        passed = 0
        while part := await reader.read(1 << 14 if self.bandwidth else 1 << 16):
            if self.blackhole:
                continue
            await asyncio.sleep(self.latency_s)
            ends = [end for end in (self.limit_data, self.reset_after) if end is not None]
            if ends and passed + len(part) >= min(ends):
                writer.write(part[: max(min(ends) - passed, 0)])
                await writer.drain()
                if self.reset_after is not None and self.reset_after == min(ends):
                    # The bytes before a reset are to arrive.
                    await asyncio.sleep(0.02)
                    reset(writer)
                return
            writer.write(part)
            await writer.drain()
            passed += len(part)
            if self.bandwidth:
                await asyncio.sleep(len(part) / self.bandwidth)
