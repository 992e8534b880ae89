"""How readers name what the range server serves: over plain HTTP, or as a bucket of an S3 that takes unsigned requests.

Both are the same server: path-style GETs of S3 that nobody signs are plain GETs, the bucket being the first folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bench.engines import UnsupportedVolumeError

#: Asked for by every client of S3, and checked by nobody here.
REGION = "us-east-1"


@dataclass(frozen=True)
class Place:
    """The folder of a server. ``bucket``: the one folder in it that is read, through S3; None is all, over HTTP.

    ``endpoint``: the URL of the server, without a slash at the end. Paths are those below the root of the server.
    """

    endpoint: str
    bucket: str | None = None

    def url(self, path: str) -> str:
        """Of the file or folder at ``path``."""
        return f"{self.endpoint}/{path}" if self.bucket is None else f"s3://{path}"

    def http(self) -> str:
        """The URL of the folder; UnsupportedVolumeError where it is reached through S3."""
        if self.bucket is not None:
            raise UnsupportedVolumeError("it is used over plain HTTP only")
        return self.endpoint

    def key(self, path: str) -> str:
        """Of the file or folder at ``path`` in ``obstore_store``."""
        return path if self.bucket is None else path.removeprefix(f"{self.bucket}/")

    def obstore_store(self) -> Any:
        """obstore's store: one client for all that is read through it."""
        from obstore.store import HTTPStore, S3Store

        plain: Any = {"allow_http": True}
        if self.bucket is None:
            return HTTPStore.from_url(self.endpoint, client_options=plain)
        return S3Store(
            self.bucket,
            endpoint=self.endpoint,
            region=REGION,
            skip_signature=True,
            virtual_hosted_style_request=False,
            client_options=plain,
        )

    def fsspec_options(self) -> dict[str, Any]:
        """What fsspec has to know beside the URL."""
        if self.bucket is None:
            return {}
        return {"anon": True, "client_kwargs": {"endpoint_url": self.endpoint, "region_name": REGION}}

    def kvstore(self, path: str) -> str | dict[str, Any]:
        """tensorstore's, of the file at ``path``: its URL or its spec."""
        if self.bucket is None:
            return self.url(path)
        return {
            "driver": "s3",
            "bucket": self.bucket,
            "path": self.key(path),
            "endpoint": self.endpoint,
            "aws_region": REGION,
            "aws_credentials": {"type": "anonymous"},
        }
