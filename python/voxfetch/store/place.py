"""URLs of object stores -> which bucket of which service, and what lies under which prefix.

`s3://bucket/prefix`, `gs://bucket/prefix` (or `gcs:`), `az://container/prefix` (or `azure:`, `abfs:`, `abfss:`, with
the account in the options), `abfs://container@account.dfs.core.windows.net/prefix` and
`https://account.blob.core.windows.net/container/prefix`, also with a shared access signature. Prefixes of the first
three kinds are taken as they are, as the tools of these services do; only https URLs are percent-decoded.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from voxfetch.errors import UnsupportedError

__all__ = ["Kind", "Place", "is_object_url", "parse_place"]

Kind = Literal["s3", "gcs", "azure"]

_SCHEMES: dict[str, Kind] = {
    "s3": "s3",
    "s3a": "s3",
    "gs": "gcs",
    "gcs": "gcs",
    "az": "azure",
    "azure": "azure",
    "abfs": "azure",
    "abfss": "azure",
}
_SHOWN = {"s3": "s3", "gcs": "gs", "azure": "az"}
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_BUCKET = re.compile(r"[A-Za-z0-9$][A-Za-z0-9._-]{0,221}")
_AZURE_HOST = re.compile(r"([a-z0-9]{3,24})\.(?:blob|dfs)\.core\.(?:windows\.net|chinacloudapi\.cn|usgovcloudapi\.net)")


class Place(NamedTuple):
    """A prefix of a bucket (S3, GCS) or container (Azure), without slashes at its ends.

    `account` and `sas` are those that an Azure URL names, None where it names none.
    """

    kind: Kind
    bucket: str
    prefix: str
    account: str | None = None
    sas: str | None = None

    @property
    def url(self) -> str:
        """URL without a slash at the end and without secrets."""
        url = f"{_SHOWN[self.kind]}://{self.bucket}"
        if self.account is not None:
            url = f"abfs://{self.bucket}@{self.account}.dfs.core.windows.net"
        return f"{url}/{self.prefix}" if self.prefix else url


def is_object_url(url: str) -> bool:
    """Returns whether `parse_place` is for this URL."""
    scheme = _scheme_of(url)
    if scheme in {"http", "https"}:
        try:
            return _AZURE_HOST.fullmatch(urlsplit(url).hostname or "") is not None
        except ValueError:
            return False
    return scheme in _SCHEMES


def parse_place(url: str) -> Place:
    """Returns what an URL names. Raises `UnsupportedError` for one that names nothing here."""
    scheme = _scheme_of(url)
    if scheme in {"http", "https"} and is_object_url(url):
        parts = urlsplit(url)
        bucket, _, prefix = unquote(parts.path).lstrip("/").partition("/")
        if parts.username is not None or (parts.query and "sig" not in parse_qs(parts.query)):
            raise UnsupportedError("an Azure URL with a query that is no signature", hint="leave the query out")
        return _checked("azure", bucket, prefix, (parts.hostname or "").partition(".")[0], parts.query or None)
    if scheme not in _SCHEMES:
        message = "not a URL of an object store"
        raise UnsupportedError(message, hint="such URLs begin with s3://, gs://, az:// or abfs://")
    bucket, _, prefix = url[len(scheme) + 3 :].partition("/")
    kind = _SCHEMES[scheme]
    account = None
    if kind == "azure" and "@" in bucket:
        bucket, _, host = bucket.partition("@")
        match = _AZURE_HOST.fullmatch(host.lower())
        if match is None:
            message = "an Azure URL whose host is not that of a storage account"
            raise UnsupportedError(message, hint="use abfs://container@account.dfs.core.windows.net/path")
        account = match[1]
    return _checked(kind, bucket, prefix, account, None)


def _scheme_of(url: str) -> str:
    match = _SCHEME.match(url)
    return match[1].lower() if match else ""


def _checked(kind: Kind, bucket: str, prefix: str, account: str | None, sas: str | None) -> Place:
    # What stands in place of a bucket may be `key:secret@bucket`, and is not shown.
    if not _BUCKET.fullmatch(bucket):
        message = "a URL of an object store without the name of a bucket"
        raise UnsupportedError(message, hint="use s3://bucket/path; credentials go into the options")
    prefix = prefix.rstrip("/")
    if prefix and ("\0" in prefix or any(part in {"", ".", ".."} for part in prefix.split("/"))):
        message = f"the prefix {prefix[:200]!r} has an empty part, `.` or `..`"
        raise UnsupportedError(message, hint="object stores see such a path as another one than it looks like")
    return Place(kind, bucket, prefix, account, sas)
