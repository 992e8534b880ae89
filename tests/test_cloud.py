"""Whole images on S3, GCS and Azure, by whatever a user names them: the same voxels as from disk, nothing told."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import functools
import io
import json
import logging
import os
import pickle
import subprocess
import sys
import traceback
import urllib.request
from pathlib import Path

import boto3
import numpy as np
import obstore.store
import pytest
import s3fs
import zarr

import voxfetch as vf
from tests.servers import objects_in
from tests.servers.azure import AzureServer
from tests.servers.cloud import Stored
from tests.servers.faulty import Fault, FaultyServer, s3_error, status
from tests.servers.gcs import GcsServer
from tests.servers.moto_s3 import ROOT_KEYS, moto_s3
from tests.stores import CREDENTIALS, KEY, SECRET, TOKEN, nothing_is_found, token_of  # noqa: F401 - a fixture

FIB25 = Path(__file__).parent / "data/fib25/fib25.ome.zarr"
NAME = "fib25.ome.zarr"
FAST = vf.RetryPolicy(max_attempts=3, base_s=0.01, cap_s=0.05, idle_timeout_s=2)
BOX = np.s_[20:70, 30:101, 64:125]


#: The image without the voxels of its finest levels: key -> bytes.
OBJECTS = {key: body for key, body in objects_in(FIB25, f"{NAME}/").items() if "/0/c/" not in key}


@pytest.fixture
def engine():
    with vf.Engine(decode_threads=2, retry=FAST) as engine:
        yield engine


@pytest.fixture(scope="module")
def moto():
    """URL of an S3 with the image in the bucket `bucket`, public."""
    with moto_s3(OBJECTS, ACL="public-read") as url:
        yield url


def assert_same(image):
    """All that is stored is as on disk."""
    local = vf.open_image(FIB25)
    assert [level.shape for level in image.levels] == [level.shape for level in local.levels]
    assert image.levels[1].scale == local.levels[1].scale
    np.testing.assert_array_equal(image.level(1)[BOX], local.level(1)[BOX])
    np.testing.assert_array_equal(image.level(2)[...], local.level(2)[...])
    labels = image.labels["groundtruth"]
    np.testing.assert_array_equal(labels.level(2)[...], local.labels["groundtruth"].level(2)[...])
    with pytest.raises(vf.NotFoundError):
        image.level(0).with_options(vf.ReadOptions(on_missing="raise"))[:4, :4, :4]


# ------------------------------------------------------------------------------------------------------------ options

S3_OPTIONS = {
    "StoreOptions": lambda url: vf.StoreOptions(endpoint=url, credentials=CREDENTIALS, region="us-east-1"),
    "a dict": lambda url: {"endpoint": url, "credentials": CREDENTIALS},
    "storage_options of s3fs": lambda url: {"key": KEY, "secret": SECRET, "client_kwargs": {"endpoint_url": url}},
    "the same, endpoint_url": lambda url: {"key": KEY, "secret": SECRET, "endpoint_url": url},
    "anonymous": lambda url: vf.StoreOptions(endpoint=url, anonymous=True),
    "anon": lambda url: {"anon": True, "client_kwargs": {"endpoint_url": url}},
    "nothing but where": lambda url: vf.StoreOptions(endpoint=url),
}


@pytest.mark.parametrize("options", S3_OPTIONS)
def test_an_image_on_s3(moto, engine, options):
    assert_same(vf.open_image(f"s3://bucket/{NAME}", options=S3_OPTIONS[options](moto), engine=engine))


def test_the_environment_says_where_and_who(moto, engine, monkeypatch):
    for name, value in {"ENDPOINT_URL": moto, "ACCESS_KEY_ID": KEY, "SECRET_ACCESS_KEY": SECRET}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    assert_same(vf.open_image(f"s3://bucket/{NAME}", engine=engine))


def test_a_profile_says_where_and_who(moto, engine, tmp_path, monkeypatch):
    config = tmp_path / "config"
    config.write_text(
        f"[profile lab]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n"
        f"region = us-east-1\nendpoint_url = {moto}\n",
        encoding="utf-8",
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    assert_same(vf.open_image(f"s3://bucket/{NAME}", options=vf.StoreOptions(profile="lab"), engine=engine))


GCS_OPTIONS = {
    "StoreOptions": lambda url: vf.StoreOptions(endpoint=url, credentials={"token": TOKEN}),
    "storage_options of gcsfs": lambda url: {"token": TOKEN, "endpoint_url": url},
    "a callable": lambda url: vf.StoreOptions(endpoint=url, credentials=lambda: {"token": TOKEN, "expires_at": None}),
}


@pytest.mark.parametrize("options", GCS_OPTIONS)
def test_an_image_on_gcs(engine, options):
    with GcsServer({f"bucket/{key}": Stored(body) for key, body in OBJECTS.items()}, token=TOKEN) as server:
        assert_same(vf.open_image(f"gs://bucket/{NAME}", options=GCS_OPTIONS[options](server.url), engine=engine))
        assert all(request.headers["authorization"] == f"Bearer {TOKEN}" for request in server.requests)


@pytest.mark.parametrize("options", [{"token": "anon"}, {"anonymous": True}, {}])
def test_a_public_image_on_gcs(engine, options):
    with GcsServer({f"bucket/{key}": Stored(body) for key, body in OBJECTS.items()}) as server:
        image = vf.open_image(f"gs://bucket/{NAME}", options={**options, "endpoint": server.url}, engine=engine)
        assert_same(image)
        assert not [request for request in server.requests if "authorization" in request.headers]


AZURE_OPTIONS = {
    "a key": {"credentials": {"account": "account", "key": "aHVudGVyMg=="}},
    "a signature": {"credentials": {"account": "account", "sas": "sv=1&sig=c2ln"}},
    "storage_options of adlfs": {"account_name": "account", "account_key": "aHVudGVyMg=="},
}


@pytest.mark.parametrize("options", [*AZURE_OPTIONS, "public"])
def test_an_image_on_azure(engine, options):
    stored = {f"container/{key}": Stored(body) for key, body in OBJECTS.items()}
    given = AZURE_OPTIONS.get(options, {"credentials": {"account": "account"}, "anonymous": True})
    with AzureServer(stored, public=options == "public") as server:
        given = {**given, "endpoint": server.url}
        assert_same(vf.open_image(f"az://container/{NAME}", options=given, engine=engine))


# ---------------------------------------------------------------------------------------- objects of other libraries


def s3store(url, prefix=None, **more):
    options = {"client_options": {"allow_http": True}, "region": "us-east-1", **CREDENTIALS, **more}
    return obstore.store.S3Store("bucket", prefix=prefix, endpoint=url, **options)


def filesystem(url, **more):
    options = {"key": KEY, "secret": SECRET, "client_kwargs": {"endpoint_url": url}, **more}
    return s3fs.S3FileSystem(skip_instance_cache=True, **options)


def test_a_store_of_obstore(moto, engine):
    assert_same(vf.open_image(s3store(moto, NAME), engine=engine))
    array = vf.open_array(s3store(moto), f"{NAME}/2", engine=engine)
    np.testing.assert_array_equal(array[...], vf.open_array(FIB25 / "2")[...])


def of_obstore(url):
    """A store of zarr over one of obstore."""
    yield zarr.storage.ObjectStore(s3store(url, NAME), read_only=True)


def of_fsspec(url):
    """A store of zarr over a file system, whose connections are closed on zarr's loop, where they were made."""
    s3 = filesystem(url, asynchronous=True)
    yield zarr.storage.FsspecStore(s3, path=f"bucket/{NAME}", read_only=True)

    async def close():
        await (await s3.set_session()).close()

    zarr.core.sync.sync(close())


@pytest.mark.parametrize("make", [of_obstore, of_fsspec])
def test_stores_groups_and_arrays_of_zarr(moto, engine, make):
    with contextlib.contextmanager(make)(moto) as store:
        group = zarr.open_group(store, mode="r")
        assert_same(vf.open_image(group, engine=engine))
        assert_same(vf.open_image(store, engine=engine))
        array = vf.open_array(group["2"], engine=engine)
        assert array.is_remote
        np.testing.assert_array_equal(array[...], vf.open_array(FIB25 / "2")[...])


def test_file_systems_maps_and_paths_of_fsspec(moto, engine):
    s3 = filesystem(moto)
    assert_same(vf.open_image(s3.get_mapper(f"bucket/{NAME}"), engine=engine))
    array = vf.open_array(s3, f"bucket/{NAME}/2", engine=engine)
    np.testing.assert_array_equal(array[...], vf.open_array(FIB25 / "2")[...])


def test_asynchronous_twins(moto, engine):
    async def main():
        image = await vf.open_image_async(f"s3://bucket/{NAME}", options=S3_OPTIONS["a dict"](moto), engine=engine)
        return await asyncio.gather(*(image.level(2).read_async(np.s_[n : n + 9]) for n in range(0, 54, 9)))

    np.testing.assert_array_equal(np.concatenate(asyncio.run(main())), vf.open_array(FIB25 / "2")[:54])


def test_a_pickle_reads_on(moto, engine):
    image = vf.open_image(f"s3://bucket/{NAME}", options=S3_OPTIONS["a dict"](moto), engine=engine)
    copy = pickle.loads(pickle.dumps(image.level(2)))
    np.testing.assert_array_equal(copy[...], vf.open_array(FIB25 / "2")[...])
    vf.default_engine().close()


# ----------------------------------------------------------------------------------------------------------- refusals


def test_a_bucket_that_is_not_there(moto, engine):
    for options in ("a dict", "anon"):
        with pytest.raises(vf.StoreError) as caught:
            vf.open_image(f"s3://no-such-bucket/{NAME}", options=S3_OPTIONS[options](moto), engine=engine)
        assert caught.value.status in {403, 404}
        assert caught.value.key.startswith(f"s3://no-such-bucket/{NAME}")
    assert "no such bucket" in str(caught.value) or caught.value.status == 403


def test_an_image_that_is_not_there(moto, engine):
    with pytest.raises(vf.NotFoundError) as caught:
        vf.open_image("s3://bucket/nothing", options=S3_OPTIONS["a dict"](moto), engine=engine)
    assert "s3://bucket/nothing" in str(caught.value)


@pytest.fixture
def guarded(moto):
    """The keys of a user of the same S3 who may read; meanwhile it looks at signatures."""
    iam = boto3.client("iam", endpoint_url=moto, **ROOT_KEYS)
    iam.create_user(UserName="reader")
    allowed = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
    iam.put_user_policy(UserName="reader", PolicyName="p", PolicyDocument=policy)
    made = iam.create_access_key(UserName="reader")["AccessKey"]
    iam.close()
    unchecked_requests(moto, b"0")
    yield {"access_key_id": made["AccessKeyId"], "secret_access_key": made["SecretAccessKey"]}
    unchecked_requests(moto, b"inf")


def unchecked_requests(url, number):
    """Says after how many requests moto begins to look at signatures."""
    headers = {"Content-Type": "application/octet-stream"}
    request = urllib.request.Request(f"{url}/moto-api/reset-auth", data=number, headers=headers, method="POST")
    with urllib.request.urlopen(request) as reply:
        reply.read()


def test_credentials_that_are_wrong(moto, guarded, engine):
    def image(**credentials):
        options = vf.StoreOptions(endpoint=moto, credentials=guarded | credentials, anonymous=False)
        return vf.open_image(f"s3://bucket/{NAME}", options=options, engine=engine)

    assert_same(image())
    for wrong in ({"secret_access_key": SECRET}, {"access_key_id": KEY}):
        with pytest.raises(vf.CredentialsError) as caught:
            image(**wrong)
        assert caught.value.status == 403
        assert caught.value.hint
        assert not [word for word in (SECRET, KEY, *guarded.values()) if word in str(caught.value)]


class Tokens:
    """A function for credentials, as obstore wants them; `number` is that of the token that it hands out."""

    def __init__(self):
        self.number = 1
        self.calls = 0

    def __call__(self):
        self.calls += 1
        later = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
        return {**CREDENTIALS, "token": f"{TOKEN}-{self.number}", "expires_at": later}


def scripted(prefix="bucket/"):
    """An S3 without signatures that misbehaves on demand."""
    return FaultyServer({f"{prefix}{key}": body for key, body in OBJECTS.items()})


def small_requests(server, credentials, engine):
    """The image on a server, read in many requests."""
    options = vf.StoreOptions(endpoint=server.url, credentials=credentials)
    read_options = vf.ReadOptions(max_request_bytes=1 << 12)
    return vf.open_image(f"s3://bucket/{NAME}", options=options, read_options=read_options, engine=engine)


@pytest.mark.parametrize("renewable", [True, False])
def test_a_session_token_that_runs_out_in_mid_read(renewable):
    tokens = Tokens()
    valid = 1

    def rule(request):
        nonlocal valid
        if len(server.requests) == 20:
            valid = 2
            tokens.number = 2 if renewable else 1
        good = token_of(request) == f"{TOKEN}-{valid}"
        return None if good else s3_error(400, "ExpiredToken")

    with scripted() as server, vf.Engine(max_requests=4, retry=FAST) as engine:
        server.rule = rule
        image = small_requests(server, tokens, engine)
        if renewable:
            np.testing.assert_array_equal(image.level(1)[...], vf.open_array(FIB25 / "1")[...])
            refused = [one for one in server.requests[19:] if token_of(one) == f"{TOKEN}-1"]
            assert 1 <= len(refused) <= 8, "those in flight, each at its URL and through obstore"
            assert tokens.calls == 2, "asked once more"
        else:
            with pytest.raises(vf.CredentialsError) as caught:
                image.level(1)[...]
            assert caught.value.key.endswith("1/c/0/0/0")
            assert not [word for word in (TOKEN, SECRET, KEY) if word in str(caught.value)]
            assert tokens.calls == 2


def test_refusals_that_mean_missing_and_others(engine):
    """As a bucket answers that may not be listed: 403 for all that is not there, here the finest level."""

    def hides(request):
        return None if server.read(request.key) is not None else s3_error(403, "AccessDenied")

    with scripted() as server:
        server.rule = hides
        options = vf.StoreOptions(endpoint=server.url)
        image = vf.open_image(f"s3://bucket/{NAME}", options=options, engine=engine)
        assert not image.level(0)[:4, :4, :4].any()
        np.testing.assert_array_equal(image.level(2)[...], vf.open_array(FIB25 / "2")[...])
        with pytest.raises(vf.PermissionDeniedError):
            vf.open_image("s3://bucket/nothing", options=options, engine=engine)
        # A refusal of something that is there, as the store refuses everything: no fill value.
        server.rule = lambda _: s3_error(403, "AccessDenied")
        with pytest.raises((vf.PermissionDeniedError, vf.CredentialsError)):
            image.level(1)[...]
        with pytest.raises((vf.PermissionDeniedError, vf.CredentialsError)):
            image.level(0)[-4:, -4:, -4:]


def test_a_bucket_that_nobody_may_see(engine):
    """A bucket that does not exist is refused like one that is private: never fill value, never "not there"."""
    with scripted() as server:
        server.rule = lambda _: s3_error(403, "AccessDenied")
        for source in (f"s3://bucket/{NAME}", f"s3://other/{NAME}"):
            with pytest.raises(vf.PermissionDeniedError) as caught:
                vf.open_image(source, options=vf.StoreOptions(endpoint=server.url), engine=engine)
            assert caught.value.status == 403
            assert "not signed" in caught.value.hint


def test_listings_decide_nothing(moto, engine):
    """Chunks are asked for by their names: a listing that lags behind, or none at all, changes no voxel."""
    with scripted() as server:
        image = vf.open_image(f"s3://bucket/{NAME}", options=S3_OPTIONS["a dict"](server.url), engine=engine)
        np.testing.assert_array_equal(image.level(2)[...], vf.open_array(FIB25 / "2")[...])
        assert not [request for request in server.requests if "list-type" in request.target]


# ------------------------------------------------------------------------------------------------------------ secrets

WORDS = (SECRET, KEY, TOKEN, "aHVudGVyMg", "c2ln", "hunter2")


def texts_of(error):
    """Whatever an exception says, and those it came from."""
    while error is not None:
        yield from (str(error), repr(error), repr(vars(error)), *traceback.format_exception(error))
        if isinstance(error, vf.VoxfetchError):
            yield pickle.dumps(error).decode("latin-1")
        error = error.__cause__ or error.__context__


def shown(image):
    """Whatever an image and its arrays say of themselves."""
    level = image.level(1)
    yield from (repr(image), str(image), image.url, repr(level), str(level), level.url, level._repr_html_())
    yield from (repr(image.labels), repr(level.__dask_tokenize__()[:1]), repr(image.attrs))


SECRET_SOURCES = {
    "s3": (f"s3://bucket/{NAME}", {"credentials": {**CREDENTIALS, "token": TOKEN}}, "bucket/"),
    "s3, headers": (f"s3://bucket/{NAME}", {"credentials": CREDENTIALS, "headers": {"x-key": "hunter2"}}, "bucket/"),
    "gcs": (f"gs://bucket/{NAME}", {"credentials": {"token": TOKEN}}, "bucket/"),
    "azure, key": (f"az://bucket/{NAME}", {"credentials": {"account": "a", "key": "aHVudGVyMg=="}}, "bucket/"),
    "azure, sas": (f"az://bucket/{NAME}", {"credentials": {"account": "a", "sas": "sv=1&sig=c2ln"}}, "bucket/"),
    "http": (f"http://user:hunter2@HOST/{NAME}?sig=hunter2", {"headers": {"Authorization": "Bearer hunter2"}}, ""),
}
REFUSALS = (
    s3_error(403, "AccessDenied"),
    s3_error(400, "ExpiredToken"),
    s3_error(500, "InternalError"),
    s3_error(400, "Oops"),
    status(404),
    Fault(cut=-1),
    Fault(cut=10),
    Fault(shift=3),
    Fault(stall=-1),
)


@pytest.mark.parametrize("name", SECRET_SOURCES)
def test_secrets_are_told_to_nobody(name, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    source, given, prefix = SECRET_SOURCES[name]
    texts, errors = [], 0
    retry = vf.RetryPolicy(max_attempts=2, base_s=0.01, cap_s=0.01, idle_timeout_s=0.2)
    with scripted(prefix) as server, vf.Engine(retry=retry) as engine:
        if source.startswith("http:"):
            source = source.replace("HOST", server.url.partition("://")[2])
        else:
            given = {**given, "endpoint": server.url}
        options = vf.StoreOptions(**given)
        image = vf.open_image(source, options=options, engine=engine)
        assert image.level(2)[:9].any()
        texts += [repr(options), str(options), *shown(image)]
        for fault in REFUSALS:
            server.rule = lambda request, fault=fault: fault
            fresh = image.level(1).with_options(vf.ReadOptions(index_ttl_s=0, on_missing="raise"))
            opening = functools.partial(vf.open_image, source, options=options, engine=engine)
            for work in (opening, functools.partial(fresh.read, BOX)):
                try:
                    work()
                except vf.VoxfetchError as error:
                    texts += texts_of(error)
                    errors += 1
    assert errors >= 2 * len(REFUSALS) - 2
    texts += [record.getMessage() + str(record.args) for record in caplog.records]
    texts += capfd.readouterr()
    assert not [text for text in texts for word in WORDS if word in text]


@pytest.mark.parametrize(
    "source",
    [
        "http://user:hunter2@host/a?sig=hunter2|dvid:",
        "dvid://http://user:hunter2@host/a?sig=hunter2",
        "ftp://user:hunter2@host/a",
        "s3://key:hunter2@/a",
        "http://user:hunter2@ho st/a",
        "https://user:hunter2@[::1/a",
    ],
)
def test_secrets_in_what_is_no_source(source, engine):
    with pytest.raises(vf.VoxfetchError) as caught:
        vf.open(source, engine=engine)
    assert not [text for text in texts_of(caught.value) if "hunter2" in text.replace(source, "")]
    assert source not in str(caught.value)


def test_pickles_hold_what_was_given_and_no_more(moto, engine, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    image = vf.open_image(f"s3://bucket/{NAME}", options=vf.StoreOptions(endpoint=moto), engine=engine)
    assert image.level(2)[:9].any()
    data = pickle.dumps(image.level(2))
    assert SECRET.encode() not in data
    assert KEY.encode() not in data
    given = vf.open_image(f"s3://bucket/{NAME}", options=S3_OPTIONS["a dict"](moto), engine=engine)
    assert pickle.dumps(given.level(2)).count(SECRET.encode()) == 1


# --------------------------------------------------------------------------------------------------- the command line


def command(*arguments, **environ):
    """(exit code, stdout, stderr) of `voxfetch` in a process of its own, which has nothing but these variables."""
    environ = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "AWS_EC2_METADATA_DISABLED": "true", **environ}
    line = [sys.executable, "-m", "voxfetch.cli", *map(str, arguments)]
    done = subprocess.run(line, capture_output=True, timeout=50, check=False, env=environ)
    return done.returncode, done.stdout, done.stderr.decode()


@pytest.fixture(params=["http", "s3"])
def place(request):
    """A URL of the image, and the variables with which it is found."""
    if request.param == "s3":
        url = request.getfixturevalue("moto")
        yield (
            f"s3://bucket/{NAME}",
            {"AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET},
        )
    else:
        with scripted("") as server:
            yield f"{server.url}/{NAME}", {}


def test_info_and_ls(place):
    url, environ = place
    code, out, err = command("info", url, "--json", **environ)
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert [level["shape"] for level in found["levels"]] == [[250] * 3, [125] * 3, [63] * 3]
    assert found["url"] == url
    assert found["labels"] == ["groundtruth"]
    code, out, err = command("ls", url, **environ)
    assert (code, err) == (0, "")
    lines = out.decode().splitlines()
    assert lines[0] == ".  image, OME-Zarr 0.5, z y x"
    assert any(line.startswith("level 2  63 x 63 x 63 uint8") for line in lines)
    assert any(line.startswith("labels/groundtruth/level 1") for line in lines)


def test_read_and_verify(place):
    url, environ = place
    code, out, err = command("read", url, "--level", "1", "--region", "20:70,30:101,64:125", "-o", "-", **environ)
    assert code == 0, err
    np.testing.assert_array_equal(np.load(io.BytesIO(out)), vf.open_array(FIB25 / "1")[BOX])
    code, out, err = command("verify", url, "--json", **environ)
    assert code == 0, err
    found = json.loads(out)
    assert found["ok"]
    assert sum(one["objects"] for one in found["arrays"]) == 4


def test_the_command_line_tells_no_secrets(moto):
    environ = {"AWS_ENDPOINT_URL": moto, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
    with scripted("") as server:
        secret = f"{server.url.replace('//', '//user:hunter2@')}/{NAME}?sig=hunter2"
        gone = secret.replace(NAME, "nothing")
        calls = [
            (0, ("info", secret), {}),
            (0, ("ls", secret), {}),
            (0, ("read", secret, "--level", "2", "--as", "raw", "-o", os.devnull), {}),
            (0, ("verify", secret, "--level", "2"), {}),
            (3, ("info", gone), {}),
            (6, ("info", f"{secret}|dvid:"), {}),
            (2, ("read", f"{secret}|zarr3:labels", "-o", os.devnull), {}),
            (2, ("read", f"{secret}|zarr3:2", "--level", "1", "-o", os.devnull), {}),
            (0, ("info", f"s3://bucket/{NAME}"), environ),
            (5, ("info", f"s3://no-such-bucket/{NAME}"), environ),
            (3, ("verify", "s3://bucket/nothing"), environ),
        ]
        for json_too in ((), ("--json",)):
            for expected, arguments, variables in calls:
                code, out, err = command(*arguments, *json_too, **variables)
                assert code == expected, (arguments, err)
                assert not [word for word in WORDS if word in out.decode() + err], arguments
