"""Rows of connections that fail, redirects, credentials that run out, and reads that are given up."""

from __future__ import annotations

import asyncio
import gc
import socket
import threading
import time
from collections import deque

import numpy as np

import voxfetch as vf
from tests.faults import CHUNK, FAST, Row, always, described, happened, line, met, plain, reading, verdict
from tests.servers.faulty import FAULTS, Fault, FaultyServer, redirect, s3_error, status
from tests.servers.proxy import Proxy
from tests.servers.tls import certificate, trusting

RECOVERS = "right after another attempt"
GIVES_UP = "typed error with attempts"
TYPED = "typed error, not tried again"
UNSEEN = "right, nobody sees it"
SECRET = "Bearer hunter2"


def opening(url):
    """What opening an array at a URL says that cannot be reached; the host must be named."""

    def run():
        with vf.Engine(decode_threads=1, retry=FAST) as engine:
            try:
                vf.open_array(url() if callable(url) else url, engine=engine)
            except vf.VoxfetchError as error:
                host = (url() if callable(url) else url).partition("://")[2].partition("/")[0]
                named = "host named" if host in str(error) else "HOST NOT NAMED"
                return f"{described(error)}; {named}"
        return "OPENED"

    return run


def unused_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{one.getsockname()[1]}/a"


def unknown_certificate():
    server_side, _ = certificate()
    with FaultyServer(line(), ssl=server_side) as server:
        return opening(server.url)()


def no_tls():
    with FaultyServer(line()) as server:
        return opening(server.url.replace("http:", "https:"))()


def broken_handshake():
    """The server is gone in the middle of the handshake, once."""
    server_side, trusted = certificate()
    with (
        FaultyServer(line(), ssl=server_side) as server,
        ScriptedProxy(server.port, [100]) as proxy,
        trusting(trusted),
    ):
        url = proxy.url.replace("http:", "https:")
        with reading(server, url=url) as array:
            return happened(server, array, slice(0, 100))


class ScriptedProxy(Proxy):
    """Resets its connections after so many bytes of replies, one number a connection; then none."""

    def __init__(self, port, script):
        super().__init__(port)
        self.script = deque(script)

    async def handle(self, reader, writer):
        self.reset_after = self.script.popleft() if self.script else None
        await super().handle(reader, writer)


def through_proxy(disturb, **keywords):
    """A read after `disturb(proxy)`, over connections that were good before."""

    def run():
        with (
            FaultyServer(line()) as server,
            Proxy(server.port) as proxy,
            reading(server, url=proxy.url, **keywords) as array,
        ):
            array[0]
            server.requests.clear()
            disturb(proxy)
            return happened(server, array, slice(0, 100))

    return run


def silent_for_a_while(proxy):
    """What the open connections carry is swallowed; new ones are good."""
    proxy.blackhole = True
    threading.Timer(0.15, setattr, (proxy, "blackhole", False)).start()


def left_without_a_word():
    """The server ends each kept connection after a reply, and says nothing: each request goes to a dead one."""
    with FaultyServer(plain(30)) as server, reading(server, engine={"max_requests": 4}) as array:
        server.rule = lambda _: Fault(close=True)
        return verdict(array[...], slice(None), array.shape[0])


def redirected(target, number=302, **keywords):
    """A read whose requests for data are sent elsewhere."""

    def run():
        with FaultyServer(line()) as server:
            server.rule = lambda request: redirect(target, number) if request.key == "c/0" else None
            with reading(server, **keywords) as array:
                return happened(server, array, slice(0, 100))

    return run


def to_another_server():
    """Data lies on another server, which sends on to the first: neither there nor on the way back are secrets sent."""
    with FaultyServer(line() | {"again/c/0": line()["c/0"]}) as server, FaultyServer(line()) as other:
        word = SECRET.partition(" ")[2]
        headers = {"Authorization": SECRET, "X-Api-Key": SECRET, "Cookie": SECRET}
        url = server.url.replace("//", f"//user:{word}@") + f"/?sig={word}"
        other.faults.append(redirect(f"{server.url}/again/c/0"))
        with reading(server, url=url, options=vf.StoreOptions(headers=headers)) as array:
            server.rule = lambda request: redirect(f"{other.url}/c/0") if request.key == "c/0" else None
            text = happened(server, array, slice(0, 100)).partition(";")[0]
            first = all(word in repr(one) for one in server.requests if one.key == "c/0")
            there = sum(word in repr(one) for one in other.requests)
            back = sum(word in repr(one) for one in server.requests if one.key != "c/0")
        return (
            f"{text}; secrets sent to the first server: {'yes' if first else 'NO'}, to the other: {there}, back: {back}"
        )


def to_http():
    """From https to http, where everybody can read along."""
    server_side, trusted = certificate()
    with FaultyServer(line(), ssl=server_side) as server, FaultyServer(line()) as other, trusting(trusted):
        server.rule = lambda request: redirect(f"{other.url}/c/0") if request.key == "c/0" else None
        with reading(server) as array:
            text = happened(server, array, slice(0, 100))
        return f"{text}; {len(other.requests)} requests there"


def slow_one():
    """One of 64 requests takes half a second."""
    policy = vf.RetryPolicy(idle_timeout_s=5)
    with FaultyServer(plain(64)) as server, reading(server, retry=policy) as array:
        server.faults.append(Fault(delay_s=0.5))
        began = time.monotonic()
        text = happened(server, array, slice(None))
        return f"{text}; {'as long as the slowest' if 0.5 <= time.monotonic() - began < 3 else 'LONGER'}"


class Tokens:
    """Headers with a token that `current` counts; `calls` counts how often one was asked for."""

    def __init__(self):
        self.calls = 0
        self.current = 1

    def __call__(self):
        self.calls += 1
        return {"Authorization": f"Bearer {self.current}"}


def runs_out(refusal, *, renewable=True):
    """A token runs out in the middle of a read of 40 chunks, 4 at a time; the callable has a new one, or not."""

    def run():
        tokens = Tokens()
        with FaultyServer(plain(40), latency_s=0.005) as server:
            valid = 1

            def rule(request):
                nonlocal valid
                if len(server.requests) == 20:
                    valid = 2
                    tokens.current = 2 if renewable else 1
                return None if request.headers["authorization"] == f"Bearer {valid}" else refusal

            server.rule = rule
            with reading(server, options=vf.StoreOptions(headers=tokens), engine={"max_requests": 4}) as array:
                text = happened(server, array, slice(None)).partition(";")[0]
                late = len(server.requests) - 40
        if not renewable:
            return text
        return f"{text}; {'one request more for each that was refused' if 1 <= late <= 4 else f'{late} REQUESTS MORE'}"

    return run


def given_up():
    """A thousand reads, each cancelled at some moment; then the engine has all its room again."""
    pauses = np.random.default_rng(0).uniform(0, 0.003, 1000)
    engine = {"memory_limit_bytes": 1 << 20, "index_cache_bytes": 1 << 16}
    with FaultyServer(line(), latency_s=0.001) as server, reading(server, engine=engine) as array:

        async def main():
            before = len(asyncio.all_tasks())
            for pause_s in pauses:
                task = asyncio.ensure_future(array.read_async(slice(0, 5 * CHUNK)))
                await asyncio.sleep(pause_s)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            return len(asyncio.all_tasks()) - before

        tasks = asyncio.run(main())
        while server.in_flight:
            time.sleep(0.01)
        # Hangs if bytes or places of given up requests were still counted: there is room for a few at a time only.
        text = verdict(array[...], slice(None), array.shape[0])
        scheduler = array.engine.scheduler
        left = len(scheduler._tasks) + len(scheduler._calls)
        gc.collect()
        return f"{tasks} tasks and {left} requests left; then {text}"


ROWS = [
    Row(
        "T8.1", "connection refused", GIVES_UP, "RetriesExhaustedError, 4 attempts; host named", opening(unused_port())
    ),
    Row(
        "T8.2",
        "a host that has no address",
        GIVES_UP,
        "RetriesExhaustedError, 4 attempts; host named",
        opening("http://voxfetch.invalid/a"),
    ),
    Row("T8.3", "a certificate that is not trusted", TYPED, "StoreError, 1 attempt; host named", unknown_certificate),
    Row("T8.4", "https to a server without TLS", TYPED, "StoreError, 1 attempt; host named", no_tls),
    Row("T8.5", "reset in the handshake of TLS, once", RECOVERS, "right; 2 requests", broken_handshake),
    Row("T8.6", "reset before the headers, once", RECOVERS, "right; 3 requests", met(Fault(reset=-1))),
    Row(
        "T8.7",
        "reset before the headers, always",
        GIVES_UP,
        "RetriesExhaustedError, 4 attempts; 6 requests",
        always(Fault(reset=-1)),
    ),
    Row("T8.8", "reset in the body, strong ETag, once", RECOVERS, "right; 3 requests", met(Fault(reset=100))),
    Row(
        "T8.9",
        "reset in the body, no ETag, once",
        RECOVERS,
        "right; 3 requests",
        met(Fault(reset=100), server={"etags": None}),
    ),
    Row(
        "T8.10",
        "reset in the body, always",
        GIVES_UP,
        "RetriesExhaustedError, status 206, 4 attempts; 5 requests",
        always(Fault(reset=100)),
    ),
    Row("T8.11", "closed without a reply, once", RECOVERS, "right; 3 requests", met(Fault(cut=-1))),
    Row("T8.12", "a reply that is not HTTP, once", RECOVERS, "right; 3 requests", met(FAULTS["not HTTP"])),
    Row("T9.1", "silence before the headers, once", RECOVERS, "right; 3 requests", met(Fault(stall=-1))),
    Row("T9.2", "silence in the body, once", RECOVERS, "right; 3 requests", met(Fault(stall=100))),
    Row("T9.3", "20 bytes a second, once", RECOVERS, "right; 3 requests", met(Fault(trickle_s=0.05))),
    Row(
        "T9.4",
        "silence, always",
        GIVES_UP,
        "StoreTimeoutError, status 206, 4 attempts; 5 requests",
        always(Fault(stall=100)),
    ),
    Row(
        "T9.5",
        "20 bytes a second, always",
        GIVES_UP,
        "StoreTimeoutError, status 206, 4 attempts; 5 requests",
        always(Fault(trickle_s=0.05)),
    ),
    Row("T9.6", "silence in the index, once", RECOVERS, "right; 3 requests", met(Fault(stall=5), where="index")),
    Row("T10.1", "kept connections closed after each reply", UNSEEN, "right", left_without_a_word),
    Row(
        "T10.2",
        "kept connections reset",
        UNSEEN,
        "right; 1 request",
        through_proxy(Proxy.reset_all, retry=vf.RetryPolicy(max_attempts=1)),
    ),
    Row("T10.3", "kept connections silent", RECOVERS, "right; 1 request", through_proxy(silent_for_a_while)),
    Row(
        "T11.1",
        "a redirect to itself",
        "typed error after 5",
        "StoreError, status 302, 1 attempt; 6 requests",
        redirected("/c/0"),
    ),
    Row(
        "T11.2",
        "a redirect to another server, and back",
        "no secrets sent",
        "right; secrets sent to the first server: yes, to the other: 0, back: 0",
        to_another_server,
    ),
    Row(
        "T11.3",
        "a redirect from https to http",
        TYPED,
        "StoreError, status 302, 1 attempt; 1 request; 0 requests there",
        to_http,
    ),
    Row(
        "T11.4",
        "a redirect to 169.254.169.254",
        TYPED,
        "StoreError, status 302, 1 attempt; 1 request",
        redirected("http://169.254.169.254/latest/"),
    ),
    Row(
        "T11.5",
        "a redirect to a file",
        TYPED,
        "StoreError, status 302, 1 attempt; 1 request",
        redirected("file:///etc/passwd"),
    ),
    Row("T11.6", "a redirect to nowhere", TYPED, "StoreError, status 302, 1 attempt; 2 requests", met(status(302))),
    Row("T12.1", "one of 64 requests takes 0.5 s", "right", "right; 64 requests; as long as the slowest", slow_one),
    Row(
        "T14.1",
        "a token runs out in mid-read: 401",
        "right with the new one",
        "right; one request more for each that was refused",
        runs_out(status(401)),
    ),
    Row(
        "T14.2",
        "the same: 403 ExpiredToken",
        "right with the new one",
        "right; one request more for each that was refused",
        runs_out(s3_error(403, "ExpiredToken")),
    ),
    Row(
        "T14.3",
        "the same, and there is no new one",
        TYPED,
        "CredentialsError, status 401, 1 attempt",
        runs_out(status(401), renewable=False),
    ),
    Row(
        "T14.4",
        "a clock that is wrong: 403 RequestTimeTooSkewed",
        TYPED,
        "CredentialsError, status 403, 1 attempt; 2 requests",
        always(s3_error(403, "RequestTimeTooSkewed")),
    ),
    Row(
        "T15.1",
        "1,000 reads cancelled at any time",
        "nothing left",
        "0 tasks and 0 requests left; then right",
        given_up,
    ),
]
