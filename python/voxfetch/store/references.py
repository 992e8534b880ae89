"""References as a remote store: keys whose bytes lie in other objects, or in the document that says so.

A key is what the document refers to: bytes of it, a part of another object, or all of one. Beside its keys the store
answers for `.targets/N`, the N-th object that is referred to, `.inline`, what lies in the document, and `.joined/B`,
all of these one after the other, each at a multiple of 2^B: in terms of these the chunks of an array have places that
can be merged. The document is read on first use; a copy that reads it again notices another one. An object that is
referred to and not there is an error, never a chunk that is not stored.
Sources: `kerchunk` for the document, `targets` for what may be followed.
"""

from __future__ import annotations

import re
from dataclasses import replace
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple, cast

from voxfetch.errors import InternalError, NotFoundError, ObjectChangedError, StoreError, VoxfetchError
from voxfetch.store import Ask, Reply, TransientError, check_key, join_key, verify
from voxfetch.store.kerchunk import INLINE, MAX_NBYTES, WHOLE, Found, References, parse_references
from voxfetch.store.threads import Threads

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable, Sequence
    from weakref import WeakKeyDictionary

    from voxfetch.store import Clients, Get, RemoteStore
    from voxfetch.store.targets import Target, Targets

__all__ = ["ReferenceStore"]

_TARGET = re.compile(r"\.targets/([0-9]{1,9})")
_INLINE = ".inline"
_JOINED = re.compile(r"\.joined/([0-9]{1,2})")
_END = 1 << 63
# So far from each other that no request reaches from one object into the next.
_LEAST_BITS = 40


class ReferenceStore:
    """The keys of the document at `key` in a store. Cheap to make and to pickle; reads the document on first use.

    `digest` is that of the document that a copy must find.
    """

    __slots__ = ("_digest", "_document", "_found", "_key", "_locks", "_references", "_targets", "_threads")

    def __init__(self, document: RemoteStore, key: str, targets: Targets, digest: str | None = None) -> None:
        self._document = document
        self._key = key
        self._targets = targets
        self._digest = digest
        self._references: References | None = None
        # Objects of the document by their numbers.
        self._found: dict[int, Target] = {}
        self._threads = Threads("voxfetch-references")
        self._locks: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] | None = None

    def __repr__(self) -> str:
        return f"ReferenceStore({self.url!r})"

    def __reduce__(self) -> tuple[Callable[..., ReferenceStore], tuple[RemoteStore, str, Targets, str | None]]:
        return ReferenceStore, (self._document, self._key, self._targets, self._digest)

    @property
    def url(self) -> str:
        """URL of the document, and `|kerchunk:`: what opens it again, with or without a path behind."""
        return f"{join_key(self._document.url, self._key)}|kerchunk:"

    @property
    def identity(self) -> str:
        """Of the document as it was read, and of how references are followed; never shown."""
        return repr(("kerchunk", self._digest, self._key, self._document.identity, self._targets.identity))

    @property
    def references(self) -> References:
        """What the document says. Raises `InternalError` before its first use."""
        if self._references is None:
            raise InternalError("references that were not read")
        return self._references

    @staticmethod
    def target_key(number: int) -> str:
        """Returns the key of an object that is referred to (a place in `References.urls`), or of `INLINE`."""
        return _INLINE if number == INLINE else f".targets/{number}"

    @staticmethod
    def joined_key(targets: Iterable[int], end: int) -> tuple[str, int] | None:
        """Returns the key of all objects in one and its B, for targets of which at most `end` bytes are used.

        Target `t` begins at `(t + 1) << B`. None where that would be too far away.
        """
        bits = max(end.bit_length() + 2, _LEAST_BITS)
        return None if (max(targets) + 2) << bits >= _END else (f".joined/{bits}", bits)

    def direct(self, ask: Ask, clients: Clients) -> Get | None:
        """Returns the GET of a whole object that was asked for before, see `RemoteStore.direct`."""
        number = _TARGET.fullmatch(ask.key)
        target = None if number is None else self._found.get(int(number[1]))
        return None if target is None else target.store.direct(replace(ask, key=target.key), clients)

    async def get(self, ask: Ask, clients: Clients) -> Reply | None:
        """Returns the bytes asked for, None when the document has no such key. See `RemoteStore.get`.

        Raises `NotFoundError` when there is no document, or not the object that is referred to, and
        `PermissionDeniedError` for a reference that is not followed.
        """
        check_key(ask.key)
        verify.range_header(ask)
        references = await self._current(clients)
        joined = _JOINED.fullmatch(ask.key)
        if joined is not None:
            reply = await self._get(_separated(ask, int(joined[1])), references, clients)
            # No version and no size: they would be those of one of many.
            return reply and Reply(reply.body, cast("int", ask.start), None, None, None)
        return await self._get(ask, references, clients)

    async def _get(self, ask: Ask, references: References, clients: Clients) -> Reply | None:
        found = _found(references, ask.key)
        if found is None:
            return None
        if found.target == INLINE:
            return _inline(ask, references, found, f'"{self._digest}"')
        target = await self._target(references, found.target)
        try:
            return await _followed(ask, target, found, clients)
        except VoxfetchError as error:
            _place(error, ask, target)
            raise
        except TransientError as failure:
            _place(failure.error, ask, target)
            raise

    async def list(self, prefix: str, clients: Clients) -> Sequence[str]:
        """Returns the names directly under `prefix`, sorted."""
        check_key(prefix)
        return (await self._current(clients)).children(prefix)

    async def _target(self, references: References, number: int) -> Target:
        target = self._found.get(number)
        if target is None:
            target = self._found[number] = await self._targets.find(references.urls[number])
        return target

    # --- the document

    async def _current(self, clients: Clients) -> References:
        if self._references is None:
            async with self._lock():
                if self._references is None:
                    self._references = await self._read(clients)
        return self._references

    async def _read(self, clients: Clients) -> References:
        reply = await self._document.get(Ask(self._key, max_nbytes=MAX_NBYTES), clients)
        if reply is None:
            raise NotFoundError("there is no such document with references", hint="check the spelling")
        document = bytes(reply.body)
        digest, references = await self._threads.run(lambda: _parsed(document))
        if self._digest not in {None, digest}:
            # Not `ObjectChangedError`, after which the same would be asked for again.
            raise StoreError("the document with the references was replaced", hint="open it again")
        self._digest = digest
        return references

    def _lock(self) -> asyncio.Lock:
        import asyncio
        from weakref import WeakKeyDictionary

        if self._locks is None:
            self._locks = WeakKeyDictionary()
        return self._locks.setdefault(asyncio.get_running_loop(), asyncio.Lock())


class _Parsed(NamedTuple):
    digest: str
    references: References


def _parsed(document: bytes) -> _Parsed:
    return _Parsed(blake2b(document, digest_size=16).hexdigest(), parse_references(document))


def _found(references: References, key: str) -> Found | None:
    """What a key refers to, the keys of this store included."""
    if key == _INLINE:
        return Found(INLINE, 0, len(references.inline))
    number = _TARGET.fullmatch(key)
    if number is None:
        return references.find(key)
    return Found(int(number[1]), 0, WHOLE) if int(number[1]) < len(references.urls) else None


def _separated(ask: Ask, bits: int) -> Ask:
    """The ask for a part of all objects in one as that for a part of one of them."""
    if ask.start is None or ask.end is None or ask.start >> bits != (ask.end - 1) >> bits:
        raise InternalError(f"bytes {ask.start}..{ask.end} of more than one object", key=ask.key)
    number = ask.start >> bits
    before = number << bits
    return Ask(ReferenceStore.target_key(number - 1), ask.start - before, ask.end - before)


def _inline(ask: Ask, references: References, found: Found, etag: str) -> Reply:
    if ask.if_match not in {None, etag}:
        raise ObjectChangedError("the document with the references was replaced", key=ask.key)
    if verify.asked_nbytes(ask) is None and found.nbytes > ask.max_nbytes:
        raise verify.too_large(ask)
    start, end = verify.extent(ask, found.nbytes)
    body = memoryview(references.inline)[found.offset + start : found.offset + end]
    return Reply(body, start, found.nbytes, etag, None)


async def _followed(ask: Ask, target: Target, found: Found, clients: Clients) -> Reply:
    """The part asked for of what a key refers to in another object."""
    if found.nbytes == WHOLE:
        reply = await target.store.get(replace(ask, key=target.key), clients)
    else:
        if verify.asked_nbytes(ask) is None and found.nbytes > ask.max_nbytes:
            raise verify.too_large(ask)
        start, end = verify.extent(ask, found.nbytes)
        if start == end:
            return Reply(b"", start, found.nbytes, None, None)
        inner = Ask(target.key, found.offset + start, found.offset + end, None, ask.if_match)
        reply = await target.store.get(inner, clients)
        reply = None if reply is None else reply._replace(start=start, total=found.nbytes)
    if reply is None:
        raise NotFoundError("an object that is referred to is not there", hint="was it moved or deleted?")
    return reply


def _place(error: VoxfetchError, ask: Ask, target: Target) -> None:
    """Names the object that was looked at beside the key."""
    error.key, error.byte_range = ask.key, verify.byte_range(ask)
    error.message = f"{error.message}, at {target.shown}"
