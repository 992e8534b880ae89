"""N5: the node at a path. Which documents it has, and what they say of its children.

One document, `attributes.json`, holds attributes of datasets and users alike. A dataset has `dimensions`, `blockSize`
and `dataType`; every other folder is a group and needs no document. What makes a group an image is in
`formats.n5_image`. Sources: N5 specification 4.0.0 ("File-system specification"), Java's reader (comments before the
object).
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from voxfetch.errors import PermissionDeniedError, UnsupportedError, VoxfetchError
from voxfetch.formats.around import above
from voxfetch.formats.n5_image import Document, level_paths, parse_image
from voxfetch.node import Described, Node, parse_json
from voxfetch.store import join_key

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from voxfetch.ngff import Multiscale
    from voxfetch.node import Settings
    from voxfetch.store import Store

    Found = bytes | PermissionDeniedError | None

__all__ = ["DOCUMENT", "child_names", "find"]

DOCUMENT = "attributes.json"

_DATASET = frozenset({"dimensions", "blockSize", "dataType"})
_OWN = _DATASET | {"compression", "compressionType", "codecs"}
# Members besides those that the core looks at.
_LOOKED_AT = _OWN | {"axes", "transform", "isLabelMultiset"}
# Possessive: a repetition that may give back remembers each of its steps, which costs a hundred times the document.
_COMMENTS = re.compile(rb"(?:\s+|//[^\n]*\n|/\*.*?\*/)*+", re.DOTALL)
_LEVEL = re.compile(r"s(?:0|[1-9][0-9]{0,2})")
# Levels that are asked for where nobody can list them; each halves the one before.
_ASKED_LEVELS = 16


def find(store: Store, path: str, settings: Settings) -> Node | None:
    """Returns the node at `path`: an array, an image (a group with `multiscale`), a group, or None for nothing.

    Asked for at once: the document of the node, those of the groups above it, and of its `s0`; then, of an image, those
    of its levels, which become children that are known. A folder without a document is a group if a group above it has
    one. A document that the store refuses to show counts as not there.

    Raises `MetadataError`, `UnsupportedError` (label multisets), `LimitExceededError`, `StoreError`.
    """
    first, higher = join_key(path, "s0"), above(path, None)
    own, of_first, *of_above = store.get_many([join_key(folder, DOCUMENT) for folder in (path, first, *higher)])
    members = _parsed(store, path, own)
    if isinstance(own, bytes) and members is not None and members.keys() >= _DATASET:
        return Node(store, path, "n5", "array", own, _attributes(members), settings=settings)
    found = [_parsed(store, folder, document) for folder, document in zip(higher, of_above, strict=True)]
    groups = [Document(DOCUMENT, members or {})]
    groups += [Document(f"{'../' * (i + 1)}{DOCUMENT}", other) for i, other in enumerate(found) if other is not None]
    try:
        image = _image(store, path, groups, _parsed(store, first, of_first))
    except VoxfetchError as error:
        error.in_object(join_key(store.url, path))
        raise
    if members is None and image is None and not _is_folder(store, path, found):
        return None
    multiscale, consolidated = image or (None, None)
    document = own if isinstance(own, bytes) else b"{}"
    return Node(
        store, path, "n5", "group", document, members or {}, consolidated, settings=settings, multiscale=multiscale
    )


def child_names(store: Store, path: str) -> list[str]:
    """Returns the names of the nodes directly below a group, sorted: folders, with a document or without.

    Raises `UnsupportedError` where nobody can list, `StoreError`.
    """
    names = [name for name in store.list(path) if not name.startswith((".", "__")) and name != DOCUMENT]
    documents = store.get_many([join_key(path, name, DOCUMENT) for name in names])
    return [
        name
        for name, document in zip(names, documents, strict=True)
        if document is not None or store.list(join_key(path, name))
    ]


def _parsed(store: Store, folder: str, document: Found) -> dict[str, Any] | None:
    """What a document holds; None where there is none, or where the store refuses to say."""
    if not isinstance(document, bytes):
        return None
    return parse_json(_COMMENTS.sub(b"", document, count=1), join_key(store.url, folder, DOCUMENT))


def _attributes(members: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes of a dataset that are the user's."""
    return {name: value for name, value in members.items() if name not in _OWN}


def _is_folder(store: Store, path: str, higher: Sequence[Mapping[str, Any] | None]) -> bool:
    """Whether a path without a document is a folder in a group of N5; folders in a dataset hold its blocks."""
    nearest = next((members for members in higher if members is not None), None)
    if nearest is None or nearest.keys() >= _DATASET:
        return False
    try:
        return bool(store.list(path))
    except UnsupportedError:
        return False


def _image(
    store: Store, path: str, groups: Sequence[Document], first: Mapping[str, Any] | None
) -> tuple[Multiscale, dict[str, Described]] | None:
    """The image in a group, and those of its levels that were looked at; `first` is what `s0` holds."""
    below = ""
    if "painteraData" in groups[0].members and first is None:
        below = "data"
        folders = [join_key(path, below), join_key(path, below, "s0")]
        of_data, of_first = store.get_many([join_key(folder, DOCUMENT) for folder in folders])
        data = Document(join_key(below, DOCUMENT), _parsed(store, folders[0], of_data) or {})
        groups, first = [data, *groups], _parsed(store, folders[1], of_first)
    known = {"s0": first} if first is not None and first.keys() >= _DATASET else {}
    if not known and "multiscales" not in groups[0].members:
        return None
    names = level_paths(groups)
    told = names is not None
    if names is None:
        names = _listed_levels(store, join_key(path, below))
    known = _datasets(store, join_key(path, below), names, known)
    names = [name for name in names if told or name in known]
    levels = {name: Document(join_key(below, name, DOCUMENT), known.get(name, {})) for name in names}
    multiscale = parse_image(groups, levels)
    if multiscale is None:
        return None
    datasets = tuple(replace(one, path=join_key(below, one.path)) for one in multiscale.datasets)
    described = {join_key(below, name): _described(known[name]) for name in names if name in known}
    return replace(multiscale, datasets=datasets), described


def _listed_levels(store: Store, path: str) -> list[str]:
    """Names such as `s0` directly below a group, finest first; where nobody can list, those that it may have."""
    try:
        names = store.list(path)
    except (UnsupportedError, PermissionDeniedError):
        names = [f"s{k}" for k in range(_ASKED_LEVELS)]
    return sorted((name for name in names if _LEVEL.fullmatch(name)), key=lambda name: int(name[1:]))


def _datasets(
    store: Store, path: str, names: Sequence[str], known: Mapping[str, Mapping[str, Any]]
) -> dict[str, Mapping[str, Any]]:
    """What the documents of those names hold that are datasets; `known` are not asked for again."""
    unknown = [name for name in names if name not in known]
    documents = store.get_many([join_key(path, name, DOCUMENT) for name in unknown])
    datasets = dict(known)
    for name, document in zip(unknown, documents, strict=True):
        members = _parsed(store, join_key(path, name), document)
        if members is not None and members.keys() >= _DATASET:
            datasets[name] = members
    return datasets


def _described(members: Mapping[str, Any]) -> Described:
    document = {name: value for name, value in members.items() if name in _LOOKED_AT}
    return Described("n5", "array", document, _attributes(members))
