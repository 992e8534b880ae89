"""`ObjectStore` against moto and an S3 that misbehaves: what comes back, what is asked for, what stays secret."""

# Fixtures are imported, and are arguments.
# ruff: noqa: F811

from __future__ import annotations

import asyncio
import gzip
import pickle
import subprocess
import sys

import brotli
import obstore.store
import pytest

import voxfetch as vf
from tests.servers.asking import RANGE, get, outcome, run
from tests.servers.faulty import Fault, s3_error, status
from tests.servers.moto_s3 import moto_s3
from tests.stores import (
    CREDENTIALS,
    DATA,
    KEY,
    SECRET,
    TOKEN,
    is_reply,
    listed,
    nothing_is_found,  # noqa: F401 - a fixture
    s3,
    scripted,  # noqa: F401 - a fixture
)
from voxfetch.connections import Connections
from voxfetch.options import StoreOptions
from voxfetch.store import Ask, Reply, TransientError
from voxfetch.store.native import settle
from voxfetch.store.object import ObjectStore

# ----------------------------------------------------------------------------------------------------------- S3, moto


@pytest.fixture(scope="module")
def moto():
    """URL of an S3 with the bucket `bucket`."""
    objects = {"a/c/0/0": DATA, "a/zarr.json": b"{}", "a/empty": b"", "a/ü %41?#~&": b"odd", "b/c": b"other"}
    with moto_s3({f"root/{key}": value for key, value in objects.items()}) as url:
        yield url


def test_parts_and_whole_objects_of_s3(moto):
    whole, part, end, longer, missing = get(
        s3(moto), Ask("a/c/0/0"), RANGE, Ask("a/c/0/0", suffix=24), Ask("a/c/0/0", suffix=5000), Ask("a/c/0/1")
    )
    assert is_reply(whole, DATA, 0, 1024)
    assert is_reply(part, DATA[100:300], 100, 1024)
    assert is_reply(end, DATA[1000:], 1000, 1024)
    assert is_reply(longer, DATA, 0, 1024)
    assert missing is None
    assert whole.etag == part.etag == end.etag
    assert whole.etag.startswith('"')
    assert whole.modified.endswith(" GMT")


def test_keys_are_taken_as_they_are(moto):
    assert is_reply(get(s3(moto), Ask("a/ü %41?#~&")), b"odd", 0, 3)
    assert is_reply(get(s3(moto, "root/a/ü %41?#~&"), Ask("")), b"odd", 0, 3), "the URL may name the object"


def test_an_empty_object(moto):
    asks = Ask("a/empty"), Ask("a/empty", suffix=10), Ask("a/empty", 0, 10), Ask("a/empty", 1, 10)
    *nothing, part = get(s3(moto), *asks)
    for reply in nothing:
        assert is_reply(reply, b"", 0, 0)
    assert isinstance(part, vf.ObjectChangedError)


def test_ranges_that_do_not_lie_in_the_object(moto):
    over, outside = get(s3(moto), Ask("a/c/0/0", 1000, 1100), Ask("a/c/0/0", 5000, 5001))
    assert isinstance(over, vf.ObjectChangedError)
    assert isinstance(outside, vf.ObjectChangedError)
    assert over.byte_range == (1000, 1100)
    with pytest.raises(vf.InternalError):
        run(lambda clients: s3(moto).get(Ask("a/c/0/0", 5, 5), clients))


def test_versions(moto):
    store = s3(moto)
    etag = get(store, RANGE).etag
    same, other = get(store, Ask("a/c/0/0", 1, 2, if_match=etag), Ask("a/c/0/0", 1, 2, if_match='"other"'))
    assert is_reply(same, DATA[1:2], 1, 1024)
    assert isinstance(other, vf.ObjectChangedError)
    assert other.status == 412


def test_large_objects_are_not_read_whole(moto):
    assert isinstance(get(s3(moto), Ask("a/c/0/0", max_nbytes=1000)), vf.LimitExceededError)


def test_listings(moto):
    store = s3(moto)
    assert listed(store) == ["a", "b"]
    assert listed(store, "a") == sorted(["c", "zarr.json", "empty", "ü %41?#~&"])
    assert listed(store, "nothing") == []
    assert "root" in listed(s3(moto, ""))


def test_a_bucket_that_is_not_there(moto):
    store = ObjectStore("s3://no-such-bucket/x", StoreOptions(endpoint=moto, credentials=CREDENTIALS))
    error = get(store, Ask("zarr.json"))
    assert isinstance(error, vf.StoreError)
    assert "no such bucket" in str(error)


def test_stores_that_users_made(moto):
    own = obstore.store.S3Store(
        "bucket",
        prefix="root",
        endpoint=moto,
        region="us-east-1",
        client_options={"allow_http": True},
        **CREDENTIALS,
    )
    store = ObjectStore(own, StoreOptions())
    assert store.url == "s3://bucket/root"
    assert is_reply(get(store, RANGE), DATA[100:300], 100, 1024)
    assert listed(store) == ["a", "b"]
    copy = pickle.loads(pickle.dumps(store))
    assert copy.identity == store.identity
    assert SECRET not in repr(store) + store.url + store.identity
    assert is_reply(get(copy, RANGE), DATA[100:300], 100, 1024)


def test_memory_and_disk_of_obstore(tmp_path):
    memory = obstore.store.MemoryStore()
    local = obstore.store.LocalStore(str(tmp_path))
    for own in (memory, local):
        obstore.put(own, "a/x", DATA)
        store = ObjectStore(own, StoreOptions())
        part, end, outside, missing = get(
            store, Ask("a/x", 5, 9), Ask("a/x", suffix=4), Ask("a/x", 5000, 5001), Ask("y")
        )
        assert is_reply(part, DATA[5:9], 5, 1024)
        assert is_reply(end, DATA[-4:], 1020, 1024)
        assert isinstance(outside, vf.ObjectChangedError)
        assert missing is None
        assert is_reply(get(store, Ask("a/x", 1, 2, if_match=part.etag)), DATA[1:2], 1, 1024)
        assert listed(store, "a") == ["x"]


# -------------------------------------------------------------------------------------------- S3, scripted replies


@pytest.mark.parametrize(
    ("fault", "throttled"),
    [
        (s3_error(503, "SlowDown"), True),
        (s3_error(429, "TooManyRequests"), True),
        (s3_error(500, "InternalError"), False),
        (status(502), False),
        (Fault(cut=-1), False),
        (Fault(reset=-1), False),
        (Fault(reset=100), False),
        (Fault(stall=-1), False),
        (Fault(stall=100), False),
        (Fault(lie=50), False),
    ],
    ids=lambda value: "" if isinstance(value, bool) else None,
)
def test_what_may_go_better_next_time(scripted, fault, throttled):
    scripted.faults.append(fault)

    async def work(_):
        clients = Connections(idle_timeout_s=0.4)
        return await outcome(s3(scripted.url), RANGE, clients)

    error = run(work)
    assert isinstance(error, TransientError)
    assert error.throttled is throttled
    assert isinstance(error.error, vf.StoreError)
    assert error.error.key == RANGE.key
    assert len(scripted.requests) == 1, "obstore does not try again by itself"


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault(shift=7), vf.RangeNotHonouredError),
        (Fault(no_total=True), vf.RangeNotHonouredError),
        (s3_error(403, "AccessDenied"), vf.PermissionDeniedError),
        (s3_error(400, "ExpiredToken"), vf.CredentialsError),
        (s3_error(403, "InvalidAccessKeyId"), vf.CredentialsError),
        (s3_error(403, "SignatureDoesNotMatch"), vf.CredentialsError),
        (s3_error(403, "RequestTimeTooSkewed"), vf.CredentialsError),
        (s3_error(401, "Unauthorized"), vf.CredentialsError),
        (s3_error(400, "BadRequest"), vf.StoreError),
        (s3_error(409, "Conflict"), vf.StoreError),
        (Fault(headers={"etag": '"other"'}), None),
    ],
)
def test_what_stays_wrong(scripted, fault, kind):
    scripted.faults.append(fault)
    result = get(s3(scripted.url, anonymous=False), RANGE)
    assert isinstance(result, Reply) if kind is None else type(result) is kind


def test_a_server_that_ignores_if_match(scripted):
    scripted.faults.append(Fault(ignore_if_match=True))
    assert isinstance(get(s3(scripted.url), Ask("a/c/0/0", 1, 2, if_match='"other"')), vf.ObjectChangedError)


def test_weak_etags_are_none(scripted):
    scripted.etags = "weak"
    assert get(s3(scripted.url), RANGE).etag is None


def test_a_server_that_ignores_ranges(scripted):
    scripted.rule = lambda request: Fault(ignore_range=True)
    error = get(s3(scripted.url), RANGE)
    assert isinstance(error, vf.RangeNotHonouredError)
    assert is_reply(get(s3(scripted.url), Ask("a/c/0/0", suffix=10)), DATA[-10:], 1014, 1024)


def test_nobody_listens():
    error = get(s3("http://127.0.0.1:9"), RANGE)
    assert isinstance(error, TransientError)
    assert not error.throttled


@pytest.mark.parametrize(
    ("encoding", "compress", "refused"),
    [("gzip", gzip.compress, vf.LimitExceededError), ("br", brotli.compress, vf.StoreError)],
)
def test_compressed_objects_are_decoded_within_their_limit(scripted, encoding, compress, refused):
    scripted.put("bucket/root/z", compress(DATA))
    scripted.rule = lambda request: Fault(headers={"content-encoding": encoding}) if request.key.endswith("z") else None
    store = s3(scripted.url)
    whole, part, end, large = get(store, Ask("z"), Ask("z", 100, 300), Ask("z", suffix=10), Ask("z", max_nbytes=1000))
    assert is_reply(whole, DATA, 0, 1024)
    assert is_reply(part, DATA[100:300], 100, 1024)
    assert is_reply(end, DATA[-10:], 1014, 1024)
    assert isinstance(large, refused)


# ------------------------------------------------------------------------------------------------ 403 for what is not


def hidden(request):
    return None if request.key.endswith(("a/c/0/0", "zarr.json")) else s3_error(403, "AccessDenied")


def test_403_is_missing_only_where_a_store_hides_so(scripted):
    scripted.rule = hidden
    store = s3(scripted.url)
    early, document, chunk, other = get(store, Ask("a/c/9/9"), Ask("a/zarr.json"), Ask("a/c/9/9"), Ask("a/.zattrs"))
    assert isinstance(early, vf.PermissionDeniedError)
    assert is_reply(document, b"{}", 0, 2)
    assert chunk is None
    assert isinstance(other, vf.PermissionDeniedError)
    scripted.rule = lambda request: s3_error(403, "ExpiredToken")
    assert isinstance(get(store, Ask("a/c/9/8")), vf.CredentialsError)


def test_a_public_store_is_asked_once_whether_it_hides(scripted):
    scripted.rule = hidden
    store = s3(scripted.url, credentials=None)
    results = get(store, Ask("a/zarr.json"), *(Ask(f"a/c/9/{number}") for number in range(5)))
    assert results[1:] == [None] * 5
    # What could be read is asked for after each refusal: a public store may refuse too, whoever asks too much.
    keys = [request.key for request in scripted.requests]
    assert len([key for key in keys if "voxfetch-" in key]) == 4
    assert len([key for key in keys if key.endswith("zarr.json")]) == 1 + 5
    assert len(keys) == 4 + 6 + 5


def test_missing_status_as_the_user_says(scripted):
    scripted.rule = hidden
    assert get(s3(scripted.url, missing_status=403), Ask("a/c/9/9")) is None
    store = s3(scripted.url, missing_status=())
    assert isinstance(get(store, Ask("a/zarr.json"), Ask("a/c/9/9"))[1], vf.PermissionDeniedError)


# --------------------------------------------------------------------------------------------------- secrets, pickles


def test_secrets_are_not_shown(scripted):
    headers = {"X-Api-Key": "hunter2-header-key"}
    credentials = {**CREDENTIALS, "session_token": TOKEN}
    texts = []
    for fault in (s3_error(500, "InternalError"), s3_error(403, "AccessDenied"), s3_error(400, "Oops"), Fault(cut=-1)):
        scripted.faults.append(fault)
        store = s3(scripted.url, credentials=credentials, headers=headers, anonymous=False)
        error = get(store, RANGE)
        texts += [repr(store), store.url, store.identity, *chain(error)]
    own = obstore.store.HTTPStore(
        scripted.url.replace("//", "//user:hunter2@") + "/bucket/root?sig=hunter2", client_options={"allow_http": True}
    )
    for fault in (s3_error(500, "InternalError"), s3_error(400, "Oops"), Fault(ignore_range=True), None):
        scripted.faults.append(fault)
        store = ObjectStore(own, StoreOptions())
        texts += [repr(store), store.url, store.identity, *chain(get(store, RANGE))]
    assert not [text for text in texts if "hunter2" in text.lower()]


def chain(error):
    """All texts of an exception and of those that hang on it."""
    while isinstance(error, BaseException):
        yield str(error)
        yield repr(error)
        yield repr(vars(error))
        if isinstance(error, TransientError):
            yield from chain(error.error)
        error = error.__cause__ or error.__context__


def test_pickles_hold_what_the_user_gave(scripted, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    store = s3(scripted.url, credentials=None)
    assert is_reply(get(store, RANGE), DATA[100:300], 100, 1024)
    data = pickle.dumps(store)
    assert SECRET.encode() not in data
    assert len(data) < 600
    copy = pickle.loads(data)
    assert (copy, copy.identity, copy.url) == (store, store.identity, store.url)
    assert is_reply(get(copy, RANGE), DATA[100:300], 100, 1024)


def test_identities():
    def of(url="s3://bucket/root", **options):
        return ObjectStore(url, StoreOptions(**options))

    def provider():
        raise AssertionError

    assert of().identity == of().identity
    assert of(credentials=CREDENTIALS).identity == of(credentials=dict(reversed(CREDENTIALS.items()))).identity
    different = [
        of(),
        of("s3://bucket/other"),
        of(anonymous=True),
        of(region="eu-west-1"),
        of(headers={"a": "b"}),
        of(credentials=CREDENTIALS),
        of(credentials={**CREDENTIALS, "token": TOKEN}),
        of(credentials=provider),
        of(credentials=provider),
        of(missing_status=403),
    ]
    assert len({store.identity for store in different}) == len(different)
    assert not [store for store in different if SECRET in store.identity]


# ------------------------------------------------------------------------------------------------------ panics, forks


def test_a_panic_is_an_error(scripted, monkeypatch):
    class PanicException(BaseException):
        pass

    store = s3(scripted.url)
    run(store._reach.session)

    async def panics(*_, **__):
        raise PanicException("range start must not be greater than end: " + SECRET)

    monkeypatch.setattr(obstore, "get_async", panics)
    error = get(store, RANGE)
    assert type(error) is vf.StoreError
    assert SECRET not in str(error)


FORK = """
import asyncio, os, signal, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)
from voxfetch.options import StoreOptions
from voxfetch.store import Ask
from voxfetch.connections import Connections
from voxfetch.store.object import ObjectStore
from voxfetch.errors import ForkSafetyError

signal.alarm(20)
url, how = sys.argv[1:]
credentials = {"key": "a", "secret": "b"}
store = ObjectStore("s3://bucket/root", StoreOptions(endpoint=url, credentials=credentials))
if how == "own":
    import obstore.store
    store = ObjectStore(obstore.store.S3Store("bucket", prefix="root", endpoint=url, region="us-east-1",
        access_key_id="a", secret_access_key="b", client_options={"allow_http": True}), StoreOptions())
elif how == "memory":
    import obstore.store
    own = obstore.store.MemoryStore()
    obstore.put(own, "a/c/0/0", bytes(1000))
    store = ObjectStore(own, StoreOptions())

def read(store=store):
    async def main():
        clients = Connections()
        replies = await asyncio.gather(*(store.get(Ask("a/c/0/0", 100, 300), clients) for _ in range(4)))
        await clients.close()
        return replies
    return [len(reply.body) for reply in asyncio.run(main())]

def child(work):
    if how == "disk":
        os.__dict__.pop("memfd_create", None)
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        signal.alarm(10)
        try:
            print(work())
            sys.stdout.flush()
        except BaseException as error:
            print(type(error).__name__, error)
            sys.stdout.flush()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0

if how == "unseen":
    # Used, but not through here.
    import obstore.store
    own = obstore.store.MemoryStore()
    obstore.put(own, "x", b"y")
else:
    print(read())
child(read)
if how not in ("memory", "unseen"):
    child(lambda: (read(), child(read))[0])
print(read())
"""


@pytest.mark.parametrize("how", ["url", "own", "unseen", "disk"])
def test_a_forked_child_reads_on(moto, how):
    done = subprocess.run(
        [sys.executable, "-c", FORK, moto, how], capture_output=True, text=True, timeout=30, check=False
    )
    lines = 2 if how == "unseen" else 5
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [str([200] * 4)] * lines


def test_what_cannot_be_had_in_a_forked_child_says_so():
    done = subprocess.run(
        [sys.executable, "-c", FORK, "http://x", "memory"], capture_output=True, text=True, timeout=30, check=False
    )
    first, second, third = done.stdout.splitlines()
    assert first == third == str([200] * 4)
    assert second.startswith("ForkSafetyError")


def test_cancelled_requests_leave_nothing_behind(scripted):
    scripted.rule = lambda request: Fault(stall=-1) if request.key.endswith("stall") else None
    store = s3(scripted.url)

    async def work(clients):
        tasks = [asyncio.create_task(store.get(Ask("stall"), clients)) for _ in range(20)]
        await asyncio.sleep(0.2)
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        settle()
        return results, await outcome(store, RANGE, clients)

    results, reply = run(work)
    assert {type(result) for result in results} == {asyncio.CancelledError}
    assert is_reply(reply, DATA[100:300], 100, 1024)


EXIT = """
import asyncio, obstore.store
from voxfetch.options import StoreOptions
from voxfetch.store import Ask
from voxfetch.connections import Connections
from voxfetch.store.object import ObjectStore
own = obstore.store.MemoryStore()
obstore.put(own, "x", b"y")
async def main():
    clients = Connections()
    await asyncio.gather(*(ObjectStore(own, StoreOptions()).get(Ask("x"), clients) for _ in range(8)))
asyncio.run(main())
"""


def test_the_end_of_the_interpreter_is_no_crash():
    # Without care for threads of obstore one in five or so ends with SIGABRT.
    running = [subprocess.Popen([sys.executable, "-c", EXIT], stderr=subprocess.PIPE) for _ in range(4) for _ in "123"]
    assert {(one.communicate(timeout=30)[1], one.returncode) for one in running} == {(b"", 0)}
