"""The sources that a server shows, by name, and what lies below them. Nothing else can be asked for.

Sources go in; what `voxfetch.open` returns comes out. Opening blocks, so it happens in threads, once for all who wait
for the same thing; what was opened below a source is kept, the least recently used first out.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import time
from collections import OrderedDict
from collections.abc import Mapping
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar, cast
from urllib.parse import unquote

import voxfetch as vf
from voxfetch.server.threads import DaemonThreads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from concurrent.futures import Future

__all__ = ["Node", "Registry", "Sources", "label_names", "named", "named_sources"]

Node: TypeAlias = "vf.Array | vf.Image | vf.Group | vf.Collection"
Sources: TypeAlias = "Iterable[Any] | Mapping[str, Any]"
_T = TypeVar("_T")

_THREADS = 8
_MAX_CHILDREN = 256
_MAX_ABSENT = 1024
_ABSENT_S = 5.0
"""How long what is not there is not looked for again."""
_TRUSTED_S = {False: 5.0, True: 60.0}
"""How long what was opened is taken for what is there, by whether it is remote: as long as its chunks are kept."""
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_OTHER = re.compile(r"[^A-Za-z0-9_.-]+")
# Documents that readers look for everywhere; no group has a child of that name, or one that begins with a dot.
_DOCUMENTS = frozenset({"zarr.json", "attributes.json"})


class _Opening:
    """A call that opens something, and how many wait for it."""

    __slots__ = ("call", "task", "waiting")

    def __init__(self, call: Future[Node | None]) -> None:
        self.call = call
        self.task = asyncio.wrap_future(call)
        self.waiting = 0


class _Kept(NamedTuple):
    """What was opened, and until when it is trusted to be what is there."""

    node: Node
    until: float


class Registry:
    """Sources by name. Made from opened objects or from what `voxfetch.open` takes.

    What is kept is opened again from time to time, and replaced when it is described in another way by then.
    """

    def __init__(self, sources: Mapping[str, Any], *, immutable: bool = False, follow_links: bool = False) -> None:
        """`sources`: by names as `named_sources` gives them. Opens nothing.

        `immutable`: what is open stays so. `follow_links`: links may lead out of a folder that is given by its path.
        """
        self._sources = dict(sources)
        self._follow_links = follow_links
        self._immutable = immutable
        self._opened: dict[str, _Kept] = {}
        self._children: OrderedDict[tuple[str, ...], _Kept] = OrderedDict()
        self._absent: OrderedDict[tuple[str, ...], float] = OrderedDict()
        self._opening: dict[tuple[str, ...], _Opening] = {}
        self._threads = DaemonThreads(_THREADS, "voxfetch-open")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the sources, in the order that they were given."""
        return tuple(self._sources)

    async def open_all(self) -> None:
        """Opens all sources. Raises what opening the first that fails raises."""
        await asyncio.gather(*(self.root(name) for name in self._sources))

    async def root(self, name: str) -> Node:
        """Returns a source, opening it on first use. Raises `NotFoundError` without a key for an unknown name."""
        kept = self._opened.get(name)
        if kept is not None and time.monotonic() < kept.until:
            return kept.node
        if name not in self._sources:
            raise vf.NotFoundError("there is no source of this name")
        source, follow_links = self._sources[name], self._follow_links
        opened = await self._once((name,), lambda: _newest(kept, _open(source, follow_links=follow_links)))
        node = cast("Node", opened)
        self._opened[name] = self._trusted(node)
        return node

    async def find(self, source: str, segments: Sequence[str]) -> tuple[Node, tuple[str, ...]]:
        """Walks down from a source as far as there are groups, images and labels: (node, names not consumed).

        A level of an image is not walked into: its number is the first of the names left. Raises `NotFoundError`
        without a key for an unknown source, and what opening a thing that is there raises.
        """
        node, at = await self.root(source), 0
        while at < len(segments):
            name = segments[at]
            if isinstance(node, vf.Image):
                # `labels` alone is a document's place.
                if name != "labels" or at + 1 == len(segments):
                    break
                step = 2
            elif isinstance(node, vf.Array) or name in _DOCUMENTS or name.startswith("."):
                break
            else:
                step = 1
            below = await self._child((source, *segments[: at + step]), node, segments[at + step - 1])
            if below is None:
                break
            node, at = below, at + step
        return node, tuple(segments[at:])

    def forget(self, source: str) -> None:
        """Lets go of a source and all below it: who asks next opens it again."""
        self._opened.pop(source, None)
        for path in [path for path in self._children if path[0] == source]:
            del self._children[path]

    async def run(self, function: Callable[[], _T]) -> _T:
        """Runs a call that blocks in one of the registry's threads."""
        return await asyncio.wrap_future(self._threads.submit(function))

    def close(self) -> None:
        """Ends the threads, those at work when they are done."""
        for opening in self._opening.values():
            opening.call.cancel()
        self._threads.close()

    async def _child(self, path: tuple[str, ...], parent: vf.Image | vf.Group, name: str) -> Node | None:
        kept, now = self._children.get(path), time.monotonic()
        if kept is not None and now < kept.until:
            self._children.move_to_end(path)
            return kept.node
        until = self._absent.get(path)
        if until is not None and now < until:
            return None
        found = await self._once(path, lambda: _newest(kept, _open_child(parent, name)))
        if found is None:
            self._children.pop(path, None)
            _keep(self._absent, path, time.monotonic() + _ABSENT_S, _MAX_ABSENT)
        else:
            _keep(self._children, path, self._trusted(found), _MAX_CHILDREN)
        return found

    def _trusted(self, node: Node) -> _Kept:
        for_s = math.inf if self._immutable else _TRUSTED_S[not node.url.startswith("file:")]
        return _Kept(node, time.monotonic() + for_s)

    async def _once(self, path: tuple[str, ...], function: Callable[[], Node | None]) -> Node | None:
        """What the call returns, made once for all who wait; who goes away stops it for nobody else.

        What nobody waits for any more ends if it runs, for the next who asks, and is not begun if it does not.
        """
        opening = self._opening.get(path)
        if opening is None:
            opening = self._opening[path] = _Opening(self._threads.submit(function))
            opening.task.add_done_callback(lambda _: self._forget(path, opening))
        opening.waiting += 1
        try:
            return await asyncio.shield(opening.task)
        finally:
            opening.waiting -= 1
            if not opening.waiting and opening.call.cancel():
                self._forget(path, opening)

    def _forget(self, path: tuple[str, ...], opening: _Opening) -> None:
        if self._opening.get(path) is opening:
            del self._opening[path]


def named_sources(sources: Any) -> dict[str, Any]:
    """Returns the sources by name: a mapping, or a list of sources and of pairs (name, source).

    A source without a name is called like the last part of its path; a name that is taken gets a number. Raises
    `ValueError` for a name that cannot stand in a URL, or that is given twice, and for no source at all.
    """
    if isinstance(sources, Mapping):
        listed: list[Any] = list(cast("Mapping[str, Any]", sources).items())
    elif isinstance(sources, (str, PathLike)) or not hasattr(sources, "__iter__"):
        listed = [sources]
    else:
        listed = list(sources)
    given = [one for one in listed if _is_pair(one)]
    taken = [cast("str", name) for name, _ in given]
    for name in taken:
        if not _NAME.fullmatch(name) or name in {".", ".."}:
            raise ValueError(f"the name {name[:80]!r} has other characters than letters, digits, `-`, `_` and `.`")
        if taken.count(name) > 1:
            raise ValueError(f"two sources have the name {name!r}")
    if not listed:
        raise ValueError("no source is given")
    named_: dict[str, Any] = {}
    for one in listed:
        if _is_pair(one):
            named_[one[0]] = one[1]
            continue
        name = wanted = named(one)
        number = 1
        while name in named_ or name in taken:
            number += 1
            name = f"{wanted}-{number}"
        named_[name] = one
    return named_


def named(source: Any) -> str:
    """Returns the name that a source gets when none is given: the last part of its path, without what names hide."""
    if isinstance(source, (str, PathLike)):
        text = str(fspath(cast("str", source)))
    else:
        text = str(getattr(source, "url", None) or getattr(source, "path", None) or "")
    head, _, inside = text.partition("|")
    if "://" in head:
        head = re.split("[?#]", head, maxsplit=1)[0].partition("://")[2]
        # Without the host, where there is a path.
        head = head.partition("/")[2] or head.rpartition("@")[2]
    inside = inside.rpartition(":")[2]
    last = (inside.strip("/") or head.replace("\\", "/").rstrip("/")).rpartition("/")[2]
    name = _OTHER.sub("-", last).strip("-")[:128]
    return name if name.strip(".") else "data"


def _is_pair(one: Any) -> bool:
    return isinstance(one, tuple) and len(cast("tuple[Any, ...]", one)) == 2 and isinstance(one[0], str)


def _open(source: Any, *, follow_links: bool) -> Node:
    if isinstance(source, (vf.Array, vf.Image, vf.Group)):
        return source
    try:
        is_name = isinstance(source, (str, PathLike))
        options = vf.StoreOptions(follow_links=False) if is_name and not follow_links else None
        return vf.open(source, options=options, read_options=vf.ReadOptions(priority="interactive"))
    except vf.NotFoundError as error:
        # It is in the registry: that it is not there is trouble, and not what was asked for.
        raise error.in_object(named(source)) from None


def _open_child(parent: vf.Image | vf.Group, name: str) -> Node | None:
    """What lies below a group or among the labels of an image; None when there is no such thing."""
    if isinstance(parent, vf.Image):
        return parent.labels[name] if name in parent.labels else None  # noqa: SIM401 - `get` hides failures
    try:
        return parent[name]
    except vf.NotFoundError as error:
        # Of what is there, a part may be missing: that is no reason to say that there is nothing.
        if error.key is None or _place(error.key) == _place(f"{parent.url}/{name}"):
            return None
        raise


def _newest(kept: _Kept | None, found: Node | None) -> Node | None:
    """What was kept if it is still described in the same way, so that what is known of its chunks is not lost."""
    if kept is None or found is None:
        return found
    return kept.node if _description(kept.node) == _description(found) else found


def _description(node: Node) -> object:
    """What an array or an image is by its documents; a group, which costs little, is like no other."""
    if isinstance(node, vf.Array):
        return node.url, node.format, node.document
    if isinstance(node, vf.Image):
        levels = [(level.url, level.document, level.scale, level.translation, level.unit) for level in node.levels]
        return node.url, levels, label_names(node), json.dumps(dict(node.attrs), default=repr)
    return node


def label_names(image: vf.Image) -> tuple[str, ...]:
    """Names of the label images; none where the document that lists them is broken: the image itself is fine."""
    try:
        return tuple(image.labels)
    except vf.MetadataError:
        return ()


def _place(url: str) -> str:
    return unquote(url.removeprefix("file://")).rstrip("/")


def _keep(kept: OrderedDict[tuple[str, ...], _T], path: tuple[str, ...], value: _T, count: int) -> None:
    kept[path] = value
    kept.move_to_end(path)
    if len(kept) > count:
        kept.popitem(last=False)
