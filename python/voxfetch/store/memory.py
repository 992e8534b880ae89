"""A store in memory, for tests and for data that was never stored."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from voxfetch.errors import ObjectChangedError
from voxfetch.store import Reply, check_key, verify
from voxfetch.store.verify import cut

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from voxfetch.store import Ask, Clients

__all__ = ["MemoryStore"]


class MemoryStore:
    """Objects by key, each with an ETag that no other version has had. A pickle holds copies of them."""

    __slots__ = ("_identity", "_name", "_objects", "_versions")

    def __init__(self, objects: Mapping[str, bytes] | None = None, name: str = "") -> None:
        self._name = name
        self._identity = f"memory:{secrets.token_hex(16)}"
        self._objects: dict[str, tuple[bytes, str]] = {}
        self._versions = 0
        for key, value in (objects or {}).items():
            self.put(key, value)

    def __repr__(self) -> str:
        return f"MemoryStore({self.url!r})"

    def __getstate__(self) -> tuple[str, dict[str, tuple[bytes, str]], int]:
        return self._name, dict(self._objects), self._versions

    def __setstate__(self, state: tuple[str, dict[str, tuple[bytes, str]], int]) -> None:
        self._name, self._objects, self._versions = state
        # From now on it is another store.
        self._identity = f"memory:{secrets.token_hex(16)}"

    @property
    def url(self) -> str:
        """`memory://` and the name."""
        return f"memory://{self._name}"

    @property
    def identity(self) -> str:
        """Equal for no two stores."""
        return self._identity

    def put(self, key: str, value: bytes) -> None:
        """Stores a version of an object."""
        self._versions += 1
        self._objects[check_key(key)] = (bytes(value), f'"{self._versions}"')

    def delete(self, key: str) -> None:
        """Removes an object. Raises `KeyError` when there is none."""
        del self._objects[key]

    def direct(self, ask: Ask, clients: Clients) -> None:
        """None: its answers are not those of a GET."""

    async def get(self, ask: Ask, clients: Clients) -> Reply | None:  # noqa: ARG002
        """Returns the bytes asked for, None when there is no such object. See `RemoteStore.get`."""
        verify.range_header(ask)
        found = self._objects.get(check_key(ask.key))
        if found is None:
            return None
        value, etag = found
        if ask.if_match not in {None, etag}:
            raise ObjectChangedError("the object was replaced", key=ask.key, byte_range=verify.byte_range(ask))
        whole = ask.start is None and ask.suffix is None
        if whole and len(value) > ask.max_nbytes:
            raise verify.too_large(ask)
        reply = Reply(value, 0, len(value), etag, None)
        return reply if whole else cut(ask, reply)

    async def list(self, prefix: str, clients: Clients) -> Sequence[str]:  # noqa: ARG002
        """Returns the names directly under `prefix`, sorted."""
        start = f"{check_key(prefix)}/" if prefix else ""
        return sorted({key[len(start) :].partition("/")[0] for key in self._objects if key.startswith(start)} - {""})
