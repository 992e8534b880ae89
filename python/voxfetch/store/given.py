"""Credentials that a user gives, by whatever name the tools of the services call them, under the names of obstore.

`StoreOptions.credentials` is a mapping of texts, or a function that returns what obstore wants of such functions
("credential provider"). Values of credentials never stand in an error.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, cast

if TYPE_CHECKING:
    from voxfetch.options import StoreOptions
    from voxfetch.store.place import Kind

__all__ = ["Given", "connection_settings", "given_credentials", "secrets_of"]

_NAMES: dict[Kind, dict[str, str]] = {
    "s3": {
        **dict.fromkeys(("access_key_id", "aws_access_key_id", "key"), "access_key_id"),
        **dict.fromkeys(("secret_access_key", "aws_secret_access_key", "secret"), "secret_access_key"),
        **dict.fromkeys(("session_token", "aws_session_token", "token"), "token"),
    },
    "gcs": {
        **dict.fromkeys(("token", "bearer_token", "access_token"), "token"),
        **{name: name for name in ("service_account", "service_account_key", "application_credentials")},
    },
    "azure": {
        **dict.fromkeys(("account", "account_name"), "account_name"),
        **dict.fromkeys(("key", "account_key", "access_key"), "access_key"),
        **dict.fromkeys(("sas", "sas_token", "sas_key"), "sas_token"),
        **dict.fromkeys(("token", "bearer_token"), "token"),
        **{name: name for name in ("client_id", "client_secret", "tenant_id", "connection_string")},
    },
}
_CONNECTION = {
    "AccountName": "account_name",
    "AccountKey": "access_key",
    "SharedAccessSignature": "sas_token",
    "BlobEndpoint": "endpoint",
}


class Given(NamedTuple):
    """What the user gave as credentials: texts under obstore's names, or a function of obstore's kind."""

    values: dict[str, str]
    provider: Callable[[], Any] | None = None


def given_credentials(kind: Kind, credentials: object) -> Given:
    """Returns `StoreOptions.credentials` checked. Raises `ValueError` naming unknown keys, `TypeError`."""
    if credentials is None:
        return Given({})
    if callable(credentials):
        return Given({}, credentials)
    if not isinstance(credentials, Mapping):
        raise TypeError(f"credentials must be a mapping or a callable, not {type(credentials).__name__}")
    given = {str(name): value for name, value in cast("Mapping[object, object]", credentials).items()}
    if kind == "gcs" and ("private_key" in given or "type" in given):
        return Given({"service_account_key": _service_account(given)})
    names = _NAMES[kind]
    unknown = sorted(name for name in given if name not in names)
    if unknown:
        known = ", ".join(map(repr, names))
        raise ValueError(f"unknown credentials {', '.join(map(repr, unknown))}; known are {known}")
    values = {names[name]: _text(name, value) for name, value in given.items() if value is not None}
    if kind == "s3" and values and not {"access_key_id", "secret_access_key"} <= set(values):
        raise ValueError('credentials for S3 need "access_key_id" and "secret_access_key"')
    if "connection_string" in values:
        values = {**connection_settings(values.pop("connection_string")), **values}
    return Given(values)


def connection_settings(text: str) -> dict[str, str]:
    """Returns what an Azure connection string says, `Name=value;Name=value`."""
    parts = dict(part.split("=", 1) for part in text.split(";") if "=" in part)
    return {_CONNECTION[name]: value for name, value in parts.items() if name in _CONNECTION and value}


def secrets_of(options: StoreOptions) -> list[str]:
    """Returns the texts of the options that must not be shown, longest first."""
    found: list[str] = []
    todo: list[object] = [options.credentials, options.headers]
    while todo:
        one = todo.pop()
        if isinstance(one, Mapping):
            todo.extend(cast("Mapping[object, object]", one).values())
        elif isinstance(one, str) and len(one) > 3:
            found.append(one)
    return sorted(found, key=len, reverse=True)


def _service_account(given: Mapping[str, object]) -> str:
    kind = given.get("type", "service_account")
    if kind != "service_account":
        raise ValueError(f'credentials of type {kind!r}: give {{"application_credentials": path of the file}} instead')
    return json.dumps(given)


def _text(name: str, value: object) -> str:
    if isinstance(value, Mapping) and name == "service_account_key":
        return json.dumps(value)
    if isinstance(value, os.PathLike):
        value = os.fspath(cast("os.PathLike[str]", value))
    if not isinstance(value, str) or not value:
        raise TypeError(f"credentials[{name!r}] must be a text that is not empty")
    return value
