"""Kerchunk references: a JSON document that says of each key where its bytes lie -> `References`.

A value is text, `base64:` and text, a JSON object (the bytes themselves, inline), `[URL]` (a whole object) or
`[URL, offset, length]`. Version 0 is a flat object of them; version 1 has them under `refs`, with `templates` that
stand in URLs as `{{name}}`, and `gen`, which makes references of ranges of integers. Expressions are names and integer
arithmetic; all else that jinja knows is refused. Source: the references specification of kerchunk; LINDI files are
version 1 of it. The document is foreign: counts, lengths and numbers are bounded before anything is made of them.
"""

from __future__ import annotations

import ast
import itertools
import json
import math
import re
from array import array
from base64 import b64decode
from binascii import Error as Base64Error
from bisect import bisect_left
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from voxfetch.errors import LimitExceededError, MetadataError, UnsupportedError
from voxfetch.store import check_key

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["INLINE", "MAX_NBYTES", "WHOLE", "Found", "References", "parse_references"]

MAX_NBYTES = 512 << 20
"""Bytes of the largest document, and of all texts that its templates make."""
MAX_REFERENCES = 1 << 22
MAX_GENERATED = 1 << 20
MAX_GENERATED_STEPS = 1 << 24
"""Parts of expressions that are worked out for all of them: some ten seconds."""
MAX_TEXT = 8 << 10
"""Letters of a URL, a template or what they become."""
INLINE = -1
"""Target of what lies in the document."""
WHOLE = (1 << 64) - 1
"""Number of bytes of a reference to a whole object."""

_END = 1 << 63
_MAX_DIMENSIONS = 32
_MAX_EXPRESSION = 200
_BRACES = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_NUMBER = re.compile(r"[0-9]{1,19}")
_RESERVED = re.compile(r"\.(?:inline|joined|targets)(?:/|\Z)")
_ROOTS = (".zgroup", ".zarray", ".zmetadata", "zarr.json")
_BELOW = tuple(f"/{name}" for name in _ROOTS)
_OPERATORS: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: int.__add__,
    ast.Sub: int.__sub__,
    ast.Mult: int.__mul__,
    ast.FloorDiv: int.__floordiv__,
    ast.Mod: int.__mod__,
}


class Found(NamedTuple):
    """Bytes `[offset, offset + nbytes)` of a target, all of it where `nbytes` is `WHOLE`."""

    target: int
    offset: int
    nbytes: int


class References:
    """The references of a document, in columns and in the order of their keys.

    `targets` are places in `urls`, or `INLINE`: then `offsets` are those in `inline`, which holds what lies in the
    document, one after the other.
    """

    __slots__ = ("inline", "keys", "nbytes", "offsets", "targets", "urls")

    def __init__(self, columns: _Columns) -> None:
        keys = columns.keys
        order = sorted(range(len(keys)), key=keys.__getitem__)
        self.keys = [keys[i] for i in order]
        self.targets = array("q", (columns.targets[i] for i in order))
        self.offsets = array("Q", (columns.offsets[i] for i in order))
        self.nbytes = array("Q", (columns.nbytes[i] for i in order))
        self.urls = list(columns.urls)
        self.inline = b"".join(columns.inline)
        for one, other in itertools.pairwise(self.keys):
            if one == other:
                raise MetadataError(f"two references for the key {one[:200]!r}")

    def find(self, key: str) -> Found | None:
        """Returns what a key refers to."""
        row = bisect_left(self.keys, key)
        if row == len(self.keys) or self.keys[row] != key:
            return None
        return Found(self.targets[row], self.offsets[row], self.nbytes[row])

    def under(self, start: str) -> range:
        """Returns the rows whose keys begin with a text."""
        return range(bisect_left(self.keys, start), bisect_left(self.keys, f"{start}\U0010ffff"))

    def children(self, prefix: str) -> list[str]:
        """Returns the names directly under a prefix, sorted."""
        start = f"{prefix}/" if prefix else ""
        rows = self.under(start)
        names: set[str] = set()
        row = rows.start
        while row < rows.stop:
            name, slash, _ = self.keys[row][len(start) :].partition("/")
            names.add(name)
            # What follows the slash in the order of letters.
            row = bisect_left(self.keys, f"{start}{name}0", row) if slash else row + 1
        return sorted(names)


class _Columns:
    """References in the order of the document."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.targets = array("q")
        self.offsets = array("Q")
        self.nbytes = array("Q")
        self.urls: dict[str, int] = {}
        self.inline: list[bytes] = []
        self._inline_nbytes = 0
        self._letters = 0

    def add(self, key: str, url: str, offset: int, nbytes: int) -> None:
        number = self.urls.get(url)
        if number is None:
            number = self.urls[url] = len(self.urls)
            self.count(url)
        self._append(key, number, offset, nbytes)

    def add_inline(self, key: str, value: bytes) -> None:
        self._append(key, INLINE, self._inline_nbytes, len(value))
        self.inline.append(value)
        self._inline_nbytes += len(value)

    def count(self, made: str) -> None:
        """Counts the letters of what templates may have made."""
        self._letters += len(made)
        if self._letters > MAX_NBYTES:
            raise LimitExceededError(f"the templates make more than {MAX_NBYTES:,} letters of references")

    def _append(self, key: str, target: int, offset: int, nbytes: int) -> None:
        if not key or _RESERVED.match(key):
            raise MetadataError(f"a reference for the key {key[:200]!r}, which names nothing")
        self.keys.append(check_key(key))
        self.targets.append(target)
        self.offsets.append(offset)
        self.nbytes.append(nbytes)


def parse_references(document: bytes) -> References:
    """Returns the references of a document.

    Raises `UnsupportedError` for JSON that holds no references and for templates that are not understood,
    `MetadataError`, `LimitExceededError`.
    """
    try:
        return _parsed(_json(document))
    except RecursionError:
        raise LimitExceededError("JSON values nested too deep") from None


def _json(document: bytes) -> object:
    try:
        return json.loads(document)
    except ValueError as error:
        message = f"not a JSON document, it begins with {document[:80]!r}: {str(error)[:200]}"
        raise MetadataError(message) from None


def _parsed(value: object) -> References:
    whole = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
    is_flat = "refs" not in whole and whole.get("version") is None
    if is_flat and not any(key in whole for key in _ROOTS) and not any(key.endswith(_BELOW) for key in whole):
        message = "this JSON file holds no references"
        raise UnsupportedError(message, hint="give the folder that holds it; kerchunk's references have `refs` in it")
    if is_flat:
        references: dict[str, Any] = whole
        templates: dict[str, Any] = {}
        generators: object = None
    else:
        if whole.get("version", 1) != 1 or isinstance(whole.get("version"), bool):
            message = f"references of version {_short(whole['version'])}"
            raise UnsupportedError(message, hint="this version reads versions 0 and 1")
        references = _object(whole.get("refs", {}), "refs")
        templates = _object(whole.get("templates") or {}, "templates")
        generators = whole.get("gen")
    if len(references) > MAX_REFERENCES:
        raise LimitExceededError(f"{len(references):,} references; the limit is {MAX_REFERENCES:,}")
    names = {name: _text(text, f"templates[{name[:100]!r}]") for name, text in templates.items()}
    columns = _Columns()
    for key, one in references.items():
        _add(columns, key, one, names)
    if generators is not None:
        _generate(columns, generators, names)
    return References(columns)


def _add(columns: _Columns, key: str, value: object, names: Mapping[str, str]) -> None:
    if isinstance(value, str):
        columns.add_inline(key, _inline(key, value))
    elif isinstance(value, dict):
        columns.add_inline(key, json.dumps(value).encode())
    elif isinstance(value, list) and len(cast("list[object]", value)) in (1, 3):
        one = cast("list[object]", value)
        url = _text(one[0], f"the reference of {key[:200]!r}")
        if "{{" in url:
            url = _rendered(_parts(url), names)
        columns.add(key, url, *((0, WHOLE) if len(one) == 1 else _extent(key, one[1], one[2])))
    else:
        message = f"the reference of {key[:200]!r} is {_short(cast('object', value))}"
        raise MetadataError(message, hint="a reference is a text, an object, [URL] or [URL, offset, length]")


def _inline(key: str, text: str) -> bytes:
    try:
        if text.startswith("base64:"):
            return b64decode(text[len("base64:") :], validate=True)
        return text.encode()
    except (Base64Error, ValueError):
        raise MetadataError(f"the bytes of {key[:200]!r} are neither text nor base64") from None


def _extent(key: str, offset: object, nbytes: object) -> tuple[int, int]:
    """Checks numbers of the document: a range of bytes that can be."""
    for number in (offset, nbytes):
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < _END:
            raise MetadataError(f"the reference of {key[:200]!r} has the number {_short(number)}")
    start, length = cast("int", offset), cast("int", nbytes)
    if start + length >= _END:
        raise MetadataError(f"the reference of {key[:200]!r} ends after byte 2^63")
    return start, length


def _object(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise MetadataError(f"{where}: a JSON object was expected, not {_short(value)}")
    return cast("dict[str, Any]", value)


def _text(value: object, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise MetadataError(f"{where}: a text was expected, not {_short(value)}")
    if len(value) > MAX_TEXT:
        raise LimitExceededError(f"{where}: a text of {len(value):,} letters; the limit is {MAX_TEXT:,}")
    return value


def _short(value: object) -> str:
    """A value for an error: numbers and texts themselves, of all else what it is."""
    return repr(value)[:80] if value is None or isinstance(value, int | float | str) else type(value).__name__


# ---------------------------------------------------------------------------------------------------------- templates


def _generate(columns: _Columns, generators: object, names: Mapping[str, str]) -> None:
    """Adds the references that `gen` stands for."""
    if not isinstance(generators, list):
        raise MetadataError(f"gen: a list was expected, not {_short(generators)}")
    left, steps = min(MAX_GENERATED, MAX_REFERENCES - len(columns.keys)), MAX_GENERATED_STEPS
    for one in cast("list[object]", generators):
        generator = _object(one, "gen")
        dimensions = _dimensions(generator.get("dimensions"))
        for values in dimensions.values():
            # At least one, or an empty range would hide how many the others are.
            left //= max(len(values), 1)
        if left < 1:
            raise LimitExceededError(f"gen: more than {MAX_GENERATED:,} references")
        parts = _generator_parts(generator)
        expressions = (part for all_of_one in parts for part in all_of_one if not isinstance(part, str))
        nodes = sum(1 for expression in expressions for _ in ast.walk(expression))
        steps -= (nodes + len(parts)) * math.prod(map(len, dimensions.values()))
        if steps < 0:
            raise LimitExceededError(f"gen: more than {MAX_GENERATED_STEPS:,} steps to work them out")
        left = _generated(columns, parts, dimensions, names)


def _generator_parts(generator: Mapping[str, Any]) -> list[list[str | ast.expr]]:
    """The texts of a generator taken apart: key, URL and, for parts of objects, offset and length."""
    ranged = [name for name in ("offset", "length") if name in generator]
    if len(ranged) == 1:
        raise MetadataError(f"gen: {ranged[0]!r} alone; a range has both offset and length")
    return [_parts(_text(str(generator.get(name, "")), f"gen.{name}")) for name in ("key", "url", *ranged)]


def _generated(
    columns: _Columns,
    parts: Sequence[Sequence[str | ast.expr]],
    dimensions: Mapping[str, Sequence[int]],
    names: Mapping[str, str],
) -> int:
    """Adds the references of one generator; returns how many more there may be."""
    for combination in itertools.product(*dimensions.values()):
        values = {**names, **dict(zip(dimensions, combination, strict=True))}
        key, url, *numbers = (_rendered(one, values) for one in parts)
        columns.count(key)
        for number in numbers:
            if not _NUMBER.fullmatch(number.strip()):
                raise MetadataError(f"gen: {number[:80]!r} is not a number of bytes")
        columns.add(key, url, *(_extent(key, *map(int, numbers)) if numbers else (0, WHOLE)))
    return min(MAX_GENERATED, MAX_REFERENCES) - len(columns.keys)


def _dimensions(value: object) -> dict[str, Sequence[int]]:
    found: dict[str, Sequence[int]] = {}
    for name, one in _object(value, "gen.dimensions").items():
        numbers = cast("list[object]", one if isinstance(one, list) else _bounds(name, one))
        if any(isinstance(n, bool) or not isinstance(n, int) or abs(n) >= _END for n in numbers):
            raise MetadataError(f"gen.dimensions[{name[:100]!r}]: integers were expected")
        whole = cast("list[int]", numbers)
        if not isinstance(one, list):
            start, stop, step = whole
            if step == 0:
                raise MetadataError(f"gen.dimensions[{name[:100]!r}]: the step is 0")
            # The length of a longer range is no size of Python's.
            if (stop - start) // step > MAX_GENERATED:
                raise LimitExceededError(f"gen: more than {MAX_GENERATED:,} references")
            found[name] = range(start, stop, step)
        else:
            found[name] = whole
    if not found or len(found) > _MAX_DIMENSIONS:
        raise MetadataError(f"gen.dimensions: {len(found)} of them")
    return found


def _bounds(name: str, value: object) -> list[object]:
    bounds = _object(value, f"gen.dimensions[{name[:100]!r}]")
    return [bounds.get("start", 0), bounds.get("stop"), bounds.get("step", 1)]


def _parts(text: str) -> list[str | ast.expr]:
    """Takes a text apart: what is literal, and the expressions between `{{` and `}}`."""
    if "{%" in text or "{#" in text:
        raise _not_understood(text)
    parts: list[str | ast.expr] = []
    for number, part in enumerate(_BRACES.split(text)):
        if number % 2 == 0:
            if "{{" in part:
                raise _not_understood(part)
            parts.append(part)
            continue
        try:
            if len(part) > _MAX_EXPRESSION:
                raise _not_understood(part)
            parts.append(ast.parse(part.strip(), mode="eval").body)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            raise _not_understood(part) from None
    return parts


def _rendered(parts: Sequence[str | ast.expr], names: Mapping[str, str | int]) -> str:
    text = "".join(part if isinstance(part, str) else str(_value(part, names)) for part in parts)
    return _text(text, "a template")


def _value(expression: ast.expr, names: Mapping[str, str | int]) -> str | int:
    if isinstance(expression, ast.Name):
        value = names.get(expression.id)
        if value is None or (isinstance(value, str) and "{{" in value):
            raise _not_understood(expression.id)
        return value
    return _number(expression, names)


def _number(expression: ast.expr, names: Mapping[str, str | int]) -> int:
    """Value of integer arithmetic."""
    value: object = None
    if isinstance(expression, ast.Constant):
        value = expression.value
    elif isinstance(expression, ast.Name):
        value = names.get(expression.id)
    elif isinstance(expression, ast.BinOp) and type(expression.op) in _OPERATORS:
        left, right = _number(expression.left, names), _number(expression.right, names)
        if right == 0 and isinstance(expression.op, ast.FloorDiv | ast.Mod):
            raise MetadataError("a template divides by 0")
        value = _OPERATORS[type(expression.op)](left, right)
    if isinstance(value, bool) or not isinstance(value, int):
        raise _not_understood(ast.unparse(expression))
    if abs(value) >= _END:
        raise MetadataError("a template makes a number of more than 63 bits")
    return value


def _not_understood(text: str) -> UnsupportedError:
    message = f"{text[:100]!r} in a template of references"
    return UnsupportedError(message, hint="this version knows {{name}} and integer arithmetic; expand the others first")
