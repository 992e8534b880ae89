"""Options of fsspec's file systems (`storage_options`) -> `StoreOptions`.

In: a mapping as s3fs, gcsfs, adlfs and fsspec's http take it; names of `StoreOptions` are understood too. What has no
meaning for reading (caches, block sizes, loops) is left out; what is not understood is an error that names it.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, cast

from voxfetch.options import StoreOptions
from voxfetch.store.given import given_credentials

if TYPE_CHECKING:
    from voxfetch.store.place import Kind

__all__ = ["store_options"]

_OWN = ("anonymous", "endpoint", "region", "headers", "credentials", "profile", "missing_status")
_MEANINGLESS = {
    "access",
    "assume_container_exists",
    "asynchronous",
    "batch_size",
    "block_size",
    "blocksize",
    "cache_options",
    "cache_regions",
    "cache_timeout",
    "cache_type",
    "check_connection",
    "connection_timeout",
    "consistency",
    "default_block_size",
    "default_cache_type",
    "default_fill_cache",
    "default_location",
    "encoded",
    "fixed_upload_size",
    "get_client",
    "listings_expiry_time",
    "local_expiry_check",
    "location_mode",
    "loop",
    "max_concurrency",
    "max_paths",
    "read_timeout",
    "requests_timeout",
    "s3_additional_kwargs",
    "same_scheme",
    "secure_serialize",
    "simple_links",
    "size_policy",
    "skip_instance_cache",
    "socket_timeout",
    "timeout",
    "use_listings_cache",
    "use_ssl",
}
_S3_CREDENTIALS = {
    "key": "key",
    "username": "key",
    "secret": "secret",
    "password": "secret",
    "token": "token",
    "aws_access_key_id": "key",
    "aws_secret_access_key": "secret",
    "aws_session_token": "token",
}
_AZURE_CREDENTIALS = (
    "account_name",
    "account_key",
    "sas_token",
    "connection_string",
    "client_id",
    "client_secret",
    "tenant_id",
)
# What gcsfs calls ways to find credentials, rather than credentials.
_GCS_WAYS = {"google_default", "cache", "cloud", "browser"}


def store_options(kind: Kind | Literal["http"], options: Mapping[str, Any]) -> StoreOptions:
    """Returns the options. Raises `ValueError` naming what is not understood, `TypeError` for values of wrong types."""
    left = {name: value for name, value in options.items() if name not in _MEANINGLESS}
    own = {name: left.pop(name) for name in _OWN if name in left}
    take = {"s3": _s3, "gcs": _gcs, "azure": _azure, "http": _http}[kind]
    found = take(left)
    # None and False are defaults of these libraries.
    unknown = sorted(name for name, value in left.items() if value is not None and value is not False and value != {})
    if unknown:
        raise ValueError(f"options that are not understood: {', '.join(map(repr, unknown))}")
    if found.get("headers") and own.get("headers"):
        own["headers"] = {**found["headers"], **own["headers"]}
    result = StoreOptions(**{name: value for name, value in {**found, **own}.items() if value is not None})
    if kind != "http":
        given_credentials(kind, result.credentials)
    return result


def _sub(left: dict[str, Any], name: str) -> dict[str, Any]:
    """Takes a mapping out of the options."""
    value: object = left.pop(name, None) or {}
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a mapping, not {type(value).__name__}")
    return dict(cast("Mapping[str, Any]", value))


def _put_back(left: dict[str, Any], name: str, rest: Mapping[str, Any]) -> None:
    """Puts back what was not understood of a mapping, under full names."""
    left.update({f"{name}.{one}": value for one, value in rest.items()})


def _s3(left: dict[str, Any]) -> dict[str, Any]:
    client, config = _sub(left, "client_kwargs"), _sub(left, "config_kwargs")
    given = {**client, **left}
    credentials = {wanted: given[name] for name, wanted in _S3_CREDENTIALS.items() if given.get(name)}
    found: dict[str, Any] = {
        "anonymous": True if left.pop("anon", None) else None,
        "endpoint": left.pop("endpoint_url", None) or client.pop("endpoint_url", None),
        "region": client.pop("region_name", None),
        "credentials": credentials or None,
    }
    if left.pop("requester_pays", False):
        found["headers"] = {"x-amz-request-payer": "requester"}
    for name in _S3_CREDENTIALS:
        left.pop(name, None)
        client.pop(name, None)
    if type(config.get("signature_version")).__name__ == "Config" or "UNSIGNED" in repr(
        config.get("signature_version")
    ):
        config.pop("signature_version")
        found["anonymous"] = True
    for name in ("s3", "retries", "connect_timeout", "read_timeout", "max_pool_connections"):
        config.pop(name, None)
    _put_back(left, "client_kwargs", client)
    _put_back(left, "config_kwargs", config)
    return found


def _gcs(left: dict[str, Any]) -> dict[str, Any]:
    token, project = left.pop("token", None), left.pop("project", None)
    found: dict[str, Any] = {"endpoint": left.pop("endpoint_url", None)}
    payer = left.pop("requester_pays", False)
    if payer:
        payer = payer if isinstance(payer, str) else project
        found["headers"] = {"x-goog-user-project": payer} if payer else None
    if token == "anon":  # noqa: S105 - not a password
        found["anonymous"] = True
    elif isinstance(token, Mapping):
        found["credentials"] = dict(cast("Mapping[str, Any]", token))
    elif isinstance(token, (str, os.PathLike)) and token not in _GCS_WAYS:
        token = os.fspath(cast("str | os.PathLike[str]", token))
        found["credentials"] = {"application_credentials" if os.path.exists(token) else "token": token}  # noqa: PTH110
    elif hasattr(cast("object", token), "refresh"):
        auth: Any = importlib.import_module("obstore.auth.google")
        found["credentials"] = auth.GoogleCredentialProvider(credentials=token)
    elif token is not None and token not in _GCS_WAYS:
        left["token"] = token
    return found


def _azure(left: dict[str, Any]) -> dict[str, Any]:
    credentials = {name: left.pop(name) for name in _AZURE_CREDENTIALS if left.get(name)}
    host = left.pop("account_host", None)
    return {
        "anonymous": True if left.pop("anon", None) else None,
        "endpoint": f"https://{host}" if host else None,
        "credentials": credentials or None,
    }


def _http(left: dict[str, Any]) -> dict[str, Any]:
    client = _sub(left, "client_kwargs")
    headers = {**_sub(left, "headers"), **_sub(client, "headers")}
    auth = client.pop("auth", None)
    if auth is not None and hasattr(auth, "encode"):
        headers["Authorization"] = auth.encode()
    for name in ("timeout", "trust_env", "connector"):
        client.pop(name, None)
    _put_back(left, "client_kwargs", client)
    return {"headers": headers or None}
