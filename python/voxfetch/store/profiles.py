"""Profiles in the files of the AWS tools, whose places AWS_SHARED_CREDENTIALS_FILE and AWS_CONFIG_FILE may change.

Keys that stand in these files are read here; what has to be fetched (single sign-on, roles, processes) is left to
boto3, where it is installed.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from typing import TYPE_CHECKING, Any, NamedTuple

from voxfetch.errors import CredentialsError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Profile", "boto3_provider", "read"]

_FETCHED = (
    "credential_process",
    "credential_source",
    "login_session",
    "role_arn",
    "sso_session",
    "sso_start_url",
    "web_identity_token_file",
)


class Profile(NamedTuple):
    """What a profile says; `keys` are credentials under obstore's names."""

    keys: dict[str, str | None] | None = None
    needs_boto3: bool = False
    region: str | None = None
    endpoint: str | None = None


def read(name: str, *, required: bool = False) -> Profile:
    """Returns the profile. Raises `CredentialsError` for broken files, and for a missing profile that is required."""
    found = _sections("AWS_CONFIG_FILE", "~/.aws/config", (f"profile {name}", name if name == "default" else ""))
    shared = _sections("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials", (name,))
    if found is None and shared is None:
        if required:
            raise CredentialsError(f"there is no profile {name!r}", hint="see ~/.aws/config and ~/.aws/credentials")
        return Profile()
    values = {**(found or {}), **(shared or {})}
    key, secret = values.get("aws_access_key_id"), values.get("aws_secret_access_key")
    fetched = any(values.get(one) for one in _FETCHED)
    keys = None
    if key and secret and not fetched:
        keys = {"access_key_id": key, "secret_access_key": secret, "token": values.get("aws_session_token") or None}
    return Profile(keys, fetched, values.get("region") or None, values.get("endpoint_url") or None)


def boto3_provider(name: str | None) -> Callable[[], Any]:
    """Returns a function that gets the credentials of a profile from boto3. Raises `CredentialsError`."""
    shown = f"profile {name!r}" if name else "the default profile"
    if importlib.util.find_spec("boto3") is None:
        message = f"{shown} has no keys, but says how to get some"
        raise CredentialsError(message, hint="install boto3, or put keys into the environment")
    boto3: Any = importlib.import_module("boto3")
    auth: Any = importlib.import_module("obstore.auth.boto3")
    try:
        return auth.Boto3CredentialProvider(boto3.Session(profile_name=name))
    except Exception as error:  # noqa: BLE001 - of botocore, which has dozens
        kind = type(error).__name__
    # Not chained: the messages of botocore hold what the processes it runs have printed.
    raise CredentialsError(f"boto3 gets no credentials for {shown} ({kind})", hint="sign in again, e.g. aws sso login")


def _sections(variable: str, default: str, names: tuple[str, ...]) -> dict[str, str] | None:
    """Settings of the first of these sections that is there, None when none is."""
    import configparser

    path = os.path.expanduser(os.environ.get(variable) or default)  # noqa: PTH111 - str in, str out
    parser = configparser.RawConfigParser(strict=False, default_section="\0", delimiters=("=",), allow_no_value=True)
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123
            parser.read_file(file)
    except OSError:
        return None
    except (configparser.Error, UnicodeDecodeError):
        broken = True
    else:
        broken = False
    if broken:
        # Not chained: the message of the parser holds the line.
        raise CredentialsError(f"the file {path} cannot be read", hint=f"mend it, or point {variable} elsewhere")
    for name in names:
        if name and parser.has_section(name):
            return {key: value or "" for key, value in parser.items(name)}
    return None
