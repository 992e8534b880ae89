"""How requests to an object store are authorized: what the user gave, else what is found, else nothing.

In: a `Place`, `StoreOptions` and `Given`; looked at: environment variables, the files of the AWS and Google tools, and
whether this machine belongs to the cloud. Out: an `Access`, the arguments of a store class of obstore. Nothing is
asked over the network here. Values of credentials never stand in an error.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from voxfetch.errors import CredentialsError, UnsupportedError
from voxfetch.store import profiles
from voxfetch.store.given import connection_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from voxfetch.options import StoreOptions
    from voxfetch.store.given import Given
    from voxfetch.store.place import Kind, Place

__all__ = ["Access", "Provider", "find_access"]

Provider = Callable[[], Any]

_S3_ROLES = (
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)
_GCS_VARIABLES = (
    "GOOGLE_APPLICATION_CREDENTIALS",
    "GOOGLE_SERVICE_ACCOUNT",
    "GOOGLE_SERVICE_ACCOUNT_PATH",
    "GOOGLE_SERVICE_ACCOUNT_KEY",
    "GOOGLE_BEARER_TOKEN",
)
_AZURE_SECRETS = ("access_key", "sas_token", "token", "client_secret")
_AZURE_VARIABLES = (
    "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_ACCESS_KEY",
    "AZURE_STORAGE_MASTER_KEY",
    "AZURE_STORAGE_SAS_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
    "AZURE_STORAGE_TOKEN",
    "AZURE_STORAGE_CLIENT_SECRET",
    "AZURE_CLIENT_SECRET",
    "AZURE_FEDERATED_TOKEN_FILE",
    "AZURE_MSI_ENDPOINT",
    "AZURE_IDENTITY_ENDPOINT",
    "AZURE_USE_AZURE_CLI",
)
# What the firmware of virtual machines says: asking for a metadata service elsewhere costs seconds of waiting.
_FIRMWARE = Path("/sys/class/dmi/id")
_MACHINES: dict[Kind, tuple[str, str]] = {
    "s3": ("sys_vendor", "Amazon EC2"),
    "gcs": ("product_name", "Google Compute Engine"),
    "azure": ("chassis_asset_tag", "7783-7084-3265-9085-8269-3286-77"),
}


class Access(NamedTuple):
    """Arguments of a store class: `config`, and `provider`, called for credentials when there are none in `config`.

    `signed` is False for requests without credentials, `renewable` says whether looking again may find newer ones.
    `region` and `endpoint` are what was found besides; None where nothing was.
    """

    config: dict[str, Any]
    provider: Provider | None = None
    signed: bool = True
    renewable: bool = True
    region: str | None = None
    endpoint: str | None = None


def find_access(place: Place, options: StoreOptions, given: Given) -> Access:
    """Returns how to reach `place`. Raises `CredentialsError`, `UnsupportedError`."""
    if options.profile is not None and place.kind != "s3":
        raise UnsupportedError("profiles are known to S3 only", hint="pass credentials")
    find = {"s3": _s3_access, "gcs": _gcs_access, "azure": _azure_access}[place.kind]
    found = find(place, options, given)
    return found._replace(provider=None, signed=False) if options.anonymous else found


def _from_machine(kind: Kind, options: StoreOptions, base: Access) -> Access:
    """No credentials: unsigned, unless the user wants it otherwise or this machine may have some of its own."""
    return base._replace(signed=options.anonymous is False or _is_machine_of(kind))


def _is_machine_of(kind: Kind) -> bool:
    if kind == "s3" and os.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
        return False
    name, value = _MACHINES[kind]
    try:
        return (_FIRMWARE / name).read_text().strip() == value
    except (OSError, UnicodeDecodeError):
        return False


def _constant(credentials: Mapping[str, Any]) -> Provider:
    """Credentials as a function, which wins over variables of the environment; as settings they would be mixed."""
    value = {"expires_at": None, **credentials}
    return lambda: value


def _s3_access(place: Place, options: StoreOptions, given: Given) -> Access:  # noqa: ARG001
    environ = os.environ
    # A missing profile is an error when the user names it, not when a variable does.
    name = options.profile or environ.get("AWS_PROFILE")
    profile = profiles.read(name or "default", required=options.profile is not None)
    region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")
    variables = (environ.get(name) for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"))
    base = Access(
        {},
        region=(profile.region if options.profile else region) or region or profile.region,
        endpoint=next(filter(None, variables), profile.endpoint),
    )
    if options.anonymous:
        return base
    if given.provider is not None:
        return base._replace(provider=given.provider)
    if given.values:
        return base._replace(provider=_constant({"token": None, **given.values}), renewable=False)
    return _s3_found(options, profile, name, base)


def _s3_found(options: StoreOptions, profile: profiles.Profile, name: str | None, base: Access) -> Access:
    if options.profile is None:
        environ = os.environ
        keys = environ.get("AWS_ACCESS_KEY_ID") and environ.get("AWS_SECRET_ACCESS_KEY")
        if keys or any(environ.get(name) for name in _S3_ROLES):
            return base
    if profile.keys:
        return base._replace(provider=_constant(profile.keys))
    if profile.needs_boto3:
        return base._replace(provider=profiles.boto3_provider(name))
    if options.profile is not None:
        raise CredentialsError(f"profile {options.profile!r} has no credentials", hint="see the files of the AWS tools")
    return _from_machine("s3", options, base)


def _gcs_access(place: Place, options: StoreOptions, given: Given) -> Access:  # noqa: ARG001
    base = Access({}, endpoint=os.environ.get("GOOGLE_BASE_URL") or None)
    if options.anonymous:
        return base
    if given.provider is not None:
        return base._replace(provider=given.provider)
    if "token" in given.values:
        return base._replace(provider=_constant({"token": given.values["token"]}), renewable=False)
    if given.values:
        return base._replace(config=dict(given.values), renewable=False)
    if any(os.environ.get(name) for name in _GCS_VARIABLES):
        return base
    folder = os.environ.get("CLOUDSDK_CONFIG") or "~/.config/gcloud"
    default = Path(folder).expanduser() / "application_default_credentials.json"
    if default.is_file():
        return base._replace(config={"application_credentials": str(default)})
    return _from_machine("gcs", options, base)


def _azure_access(place: Place, options: StoreOptions, given: Given) -> Access:
    environ = os.environ
    variables = connection_settings(environ.get("AZURE_STORAGE_CONNECTION_STRING", ""))
    endpoint = options.endpoint or given.values.get("endpoint")
    account = (
        place.account
        or given.values.get("account_name")
        or _account_of(endpoint)
        or environ.get("AZURE_STORAGE_ACCOUNT_NAME")
        or environ.get("AZURE_STORAGE_ACCOUNT")
        or variables.get("account_name")
    )
    if not account:
        hint = 'pass credentials={"account": name}, or a URL of the form abfs://container@account.dfs.core.windows.net'
        raise CredentialsError("the storage account is not known", hint=hint)
    base = Access({"account_name": account}, endpoint=endpoint)
    if options.anonymous:
        return base
    if given.provider is not None:
        return base._replace(provider=given.provider)
    values = {**given.values, **({"sas_token": place.sas} if place.sas else {})}
    if any(name in values for name in _AZURE_SECRETS):
        return _azure_signed(base._replace(renewable=False), values)
    # Variables hold the keys of one account.
    if environ.get("AZURE_STORAGE_KEY") and environ.get("AZURE_STORAGE_ACCOUNT", account) == account:
        variables = {"account_name": account, "access_key": environ["AZURE_STORAGE_KEY"]}
    if variables.get("account_name") == account and any(name in variables for name in _AZURE_SECRETS):
        return _azure_signed(base._replace(endpoint=endpoint or variables.get("endpoint")), variables)
    if any(environ.get(name) for name in _AZURE_VARIABLES):
        return base
    return _from_machine("azure", options, base)


def _azure_signed(base: Access, values: Mapping[str, str]) -> Access:
    for name in ("sas_token", "access_key", "token"):
        if name in values:
            return base._replace(provider=_constant({name: values[name]}))
    wanted = ("client_id", "client_secret", "tenant_id")
    if not all(name in values for name in wanted):
        raise CredentialsError(f"these belong together: {', '.join(wanted)}", hint="pass them all in credentials")
    return base._replace(config={**base.config, **{name: values[name] for name in wanted}})


def _account_of(endpoint: str | None) -> str | None:
    """The account in the URL of an endpoint: the first part of the host, or the path at an emulator."""
    if endpoint is None:
        return None
    parts = urlsplit(endpoint)
    path = parts.path.strip("/")
    if path:
        return path.rpartition("/")[2]
    host = parts.hostname or ""
    return host.partition(".")[0] if ".blob." in host or ".dfs." in host else None
