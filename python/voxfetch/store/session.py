"""A store object of obstore in this process, and its calls: results, or `Refused` with what went wrong.

Two ways lead here: a `Place` with its `Access`, or a store object that the user made, which is made again so that it
works in this process and leaves retries to us.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

from voxfetch.errors import ForkSafetyError
from voxfetch.store.faults import Fault, Refused, fault_of, is_foreign
from voxfetch.store.native import native

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from voxfetch.store.access import Access
    from voxfetch.store.exchange import Range
    from voxfetch.store.native import Native
    from voxfetch.store.place import Place

__all__ = ["REMADE", "Arguments", "Session", "client_options", "foreign_arguments", "open_foreign", "open_place"]

_T = TypeVar("_T")

_CLASSES = {"s3": "S3Store", "gcs": "GCSStore", "azure": "AzureStore"}
_CONNECT_TIMEOUT = timedelta(seconds=5)
# obstore's own limit is on a whole request, and what is large takes its time; the read timeout is on standing still.
_NO_TIMEOUT = timedelta(days=1)
# The classes that can be made again from their arguments; the memory of a MemoryStore is its own.
REMADE = {"S3Store", "GCSStore", "AzureStore", "HTTPStore", "LocalStore"}


class Session:
    """A store object, how it was made, and its calls. `access` is None for an object that the user made.

    `suffixes` is False for a service that refuses suffix ranges.
    """

    __slots__ = ("_native", "_secrets", "_store", "access", "region", "suffixes")

    def __init__(
        self, own: Native, store: Any, access: Access | None, region: str | None, secrets: Sequence[str]
    ) -> None:
        self._native = own
        self._store = store
        self._secrets = secrets
        self.access = access
        self.region = region
        self.suffixes = not type(store).__name__.startswith("Azure")

    @property
    def signed(self) -> bool:
        """Whether requests may carry credentials."""
        return self.access is None or self.access.signed

    async def get(self, key: str, range_: Range, if_match: str | None) -> Any:
        """Returns the result for an object or a part of it. Raises `Refused`."""
        options: dict[str, Any] = {}
        if range_ is not None:
            options["range"] = range_
        if if_match is not None:
            options["if_match"] = if_match
        return await self._call(lambda: self._native.functions.get_async(self._store, key, options=options))

    async def body(self, result: Any) -> Any:
        """Returns all bytes of a result. Raises `Refused`."""
        return await self._call(result.bytes_async)

    async def list(self, prefix: str) -> list[str]:
        """Returns the names directly under a prefix, sorted. Raises `Refused`."""
        functions = self._native.functions
        found = await self._call(lambda: functions.list_with_delimiter_async(self._store, prefix or None))
        paths = [*cast("list[str]", found["common_prefixes"]), *(str(one["path"]) for one in found["objects"])]
        return sorted({path.rstrip("/").rpartition("/")[2] for path in paths} - {""})

    async def sign(self, key: str) -> str:
        """Returns a URL with which an object can be read for an hour. Raises `Refused`."""
        functions = self._native.functions
        return await self._call(lambda: functions.sign_async(self._store, "GET", key, timedelta(hours=1)))

    def public_root(self) -> str | None:
        """Returns the URL below which the keys of a public bucket of S3 lie, None where nobody can tell."""
        # Obstore says where an object lies when it signs, with whatever keys.
        made = foreign_arguments(self._store)
        arguments = {name: value for name, value in made.kwargs.items() if name != "credential_provider"}
        # It does not take back one name that it gives.
        names = {"endpoint_url_s3": "aws_endpoint_url_s3"}
        config = {names.get(name, name): value for name, value in made.config.items() if name != "skip_signature"}
        config |= {"access_key_id": "-", "secret_access_key": "-"}
        try:
            store = type(self._store)(*made.args, **{**arguments, "config": config})
            url = str(self._native.functions.sign(store, "GET", "k", timedelta(minutes=1))).partition("?")[0]
        except BaseException as error:
            if not is_foreign(error):
                raise
            return None
        return url.removesuffix("/k") if url.endswith("/k") else None

    async def _call(self, call: Callable[[], Awaitable[_T]]) -> _T:
        try:
            return await call()
        except BaseException as error:
            if not is_foreign(error):
                raise
            fault = fault_of(error, self._secrets)
        # Outside of the handler, or the exception of obstore, with all it says, would hang on ours.
        raise Refused(self._meant(fault))

    def _meant(self, fault: Fault) -> Fault:
        """Azure says of what is not public that it does not exist."""
        hidden = fault.status == 404 and "ResourceNotFound" in fault.codes
        return fault._replace(status=403) if hidden and not self.signed else fault


def open_place(
    place: Place, access: Access, region: str | None, client: Mapping[str, Any], secrets: Sequence[str]
) -> Session:
    """Returns a session for a place; `client` are options of its HTTP client. Raises `Refused`, `ForkSafetyError`."""
    config: dict[str, Any] = dict(access.config)
    endpoint = access.endpoint
    if place.kind == "s3":
        config["region"] = region
        if endpoint is not None:
            # The second name wins over the first, and stands in a variable perhaps.
            config |= {"endpoint": endpoint, "aws_endpoint_url_s3": endpoint, "virtual_hosted_style_request": False}
    elif endpoint is not None:
        config["base_url" if place.kind == "gcs" else "endpoint"] = endpoint
    if not access.signed:
        config["skip_signature"] = True
    if endpoint is not None and endpoint.lower().startswith("http://"):
        client = {**client, "allow_http": True}
    own = native()
    arguments: dict[str, Any] = {
        "prefix": place.prefix or None,
        "config": config,
        "client_options": client,
        "retry_config": {"max_retries": 0},
    }
    if access.provider is not None:
        arguments["credential_provider"] = access.provider
    store = _made(own, _CLASSES[place.kind], (place.bucket,), arguments, secrets)
    return Session(own, store, access, region, secrets)


def open_foreign(store: Any, idle_timeout_s: float) -> Session:
    """Returns a session for a store object of obstore. Raises `Refused`, `ForkSafetyError`."""
    own = native()
    name = type(store).__name__
    if name not in REMADE:
        if own.inherited:
            message = f"an obstore {name} of the parent process cannot be used after a fork"
            raise ForkSafetyError(message, hint='start workers with "spawn" or "forkserver"')
        return Session(own, store, None, None, ())
    args, kwargs = foreign_arguments(store)
    if name != "LocalStore":
        kwargs["retry_config"] = {**(kwargs.get("retry_config") or {}), "max_retries": 0}
        kwargs["client_options"] = {**client_options(idle_timeout_s), **(kwargs.get("client_options") or {})}
    return Session(own, _made(own, name, args, kwargs, ()), None, None, ())


class Arguments(NamedTuple):
    """Arguments of a store class of obstore, secrets included."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def config(self) -> dict[str, Any]:
        """Settings of the service."""
        return self.kwargs.get("config") or {}

    @property
    def prefix(self) -> str:
        """Prefix without slashes at its ends."""
        return str(self.kwargs.get("prefix") or "").strip("/")

    @property
    def headers(self) -> dict[str, str]:
        """Headers that are sent with each request."""
        client: dict[str, Any] = self.kwargs.get("client_options") or {}
        headers: dict[str, str | bytes] = client.get("default_headers") or {}
        return {name: value.decode() if isinstance(value, bytes) else value for name, value in headers.items()}


def foreign_arguments(store: Any) -> Arguments:
    """Returns the arguments that make a store object of obstore again."""
    args, kwargs = store.__getnewargs_ex__()
    return Arguments(tuple(args), dict(kwargs))


def client_options(idle_timeout_s: float, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Returns the options of obstore's HTTP client."""
    return {
        "timeout": _NO_TIMEOUT,
        "connect_timeout": _CONNECT_TIMEOUT,
        "read_timeout": timedelta(seconds=idle_timeout_s),
        **({"default_headers": dict(headers)} if headers else {}),
    }


def _made(own: Native, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], secrets: Sequence[str]) -> Any:
    try:
        return getattr(own.classes, name)(*args, **kwargs)
    except BaseException as error:
        if not is_foreign(error):
            raise
        fault = fault_of(error, secrets)
    raise Refused(fault)
