"""An S3 of moto with one bucket, empty of what earlier ones of this process held: moto keeps one state for all."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import boto3
from moto.backends import get_backend
from moto.server import ThreadedMotoServer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

BUCKET = "bucket"
ROOT_KEYS = {"aws_access_key_id": "a", "aws_secret_access_key": "b", "region_name": "us-east-1"}


@contextlib.contextmanager
def moto_s3(objects: Mapping[str, bytes], **arguments: str) -> Iterator[str]:
    """The URL of a server that has these objects in `BUCKET`; `arguments` go to `put_object`."""
    for backends in get_backend("s3").values():
        for backend in backends.values():
            backend.reset()
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        url = "http://{}:{}".format(*server.get_host_and_port())
        client = boto3.client("s3", endpoint_url=url, **ROOT_KEYS)
        client.create_bucket(Bucket=BUCKET)
        for key, body in objects.items():
            client.put_object(Bucket=BUCKET, Key=key, Body=body, **arguments)
        client.close()
        yield url
    finally:
        server.stop()
