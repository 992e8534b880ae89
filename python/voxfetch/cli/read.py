"""`voxfetch read`: cuts a region and writes it as .npy, raw bytes or a grey PNG.

Large regions go to the file slab by slab, so that memory stays bounded; a PNG is held whole. A file appears under its
name only when it is complete.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np

import voxfetch as vf
from voxfetch.cli import text
from voxfetch.png import as_grey, write_png

if TYPE_CHECKING:
    import argparse
    from collections.abc import Generator

    from voxfetch.cli.console import Console

_SLAB_BYTES = 256 << 20
KINDS = ("npy", "raw", "png")


def read(args: argparse.Namespace, console: Console) -> int:
    """Reads `--region` of one level of the source into `--output`."""
    array = open_array(args.source, args.level)
    if array.dtype.hasobject:
        message = "elements of no fixed size have no place in such a file"
        raise vf.UnsupportedError(message, key=array.url, hint="read them in Python")
    region = text.parse_region(args.region, array.axes)
    kind = _kind(args.output, args.kind)
    started = time.perf_counter()
    with _output(args.output) as file:
        if kind == "png":
            shape, remark = _write_image(file, array, region)
        else:
            shape, remark = _write_slabs(file, array, region, console, header=kind == "npy"), ""
    seconds = time.perf_counter() - started
    count = math.prod(shape) * array.dtype.itemsize
    if args.output != "-":
        console.result(
            {
                "source": text.without_secrets(args.source),
                "output": args.output,
                "kind": kind,
                "shape": list(shape),
                "dtype": str(array.dtype),
                "nbytes": count,
                "seconds": seconds,
            }
        )
    if remark:
        console.remark(remark)
    console.remark(
        f"{text.extents(shape)} {array.dtype}, {text.size(count)} in {text.duration(seconds)} "
        f"({text.rate(count, seconds)}) -> {'stdout' if args.output == '-' else args.output}"
    )
    return 0


def open_array(source: str, level: str | None) -> vf.Array:
    """The array at `source`, or a level of the image there (the finest, unless `level` says another).

    Raises:
        UsageError: a level of something that has none, or neither an array nor an image.
    """
    node = vf.open(source)
    if isinstance(node, vf.Image):
        wanted = text.parse_level(level or "0")
        return node.level(wanted) if isinstance(wanted, int) else node.level(mag=wanted)
    if not isinstance(node, vf.Array):
        raise text.UsageError(f"{text.without_secrets(source)} is a group; `voxfetch ls` shows what is in it")
    if level is not None:
        raise text.UsageError(f"{text.without_secrets(source)} is a single array, it has no levels")
    return node


def _kind(output: str, given: str | None) -> str:
    """The form of the output: as asked for, else by the name's ending; stdout gets .npy."""
    if given is not None:
        return given
    if output == "-":
        return "npy"
    ending = Path(output).suffix.lower().removeprefix(".")
    if ending in KINDS:
        return ending
    raise text.UsageError(f"{output!r}: the name must end in {', '.join('.' + kind for kind in KINDS)}, or say --as")


@contextlib.contextmanager
def _output(name: str) -> Generator[BinaryIO]:
    """The open output. A regular file is written beside its place and moved there when the block ends well."""
    if name == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = Path(name)
    if path.exists() and not path.is_file():
        with path.open("wb") as file:
            yield file
        return
    try:
        handle, part = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    except OSError as error:
        raise OSError(error.errno, error.strerror, name) from None
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        mask = os.umask(0)
        os.umask(mask)
        Path(part).chmod(0o666 & ~mask)
        Path(part).replace(path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise


def _write_slabs(
    file: BinaryIO, array: vf.Array, region: tuple[text.Part, ...], console: Console, *, header: bool
) -> tuple[int, ...]:
    """Writes the region in C order, slabs of whole chunks at a time; returns its shape."""
    spans = [_span(part, extent) for part, extent in zip(region, array.shape, strict=True)]
    shape = tuple(len(span) for span, part in zip(spans, region, strict=True) if isinstance(part, slice))
    if header:
        npy = cast("Any", np.lib.format)
        description = {"descr": npy.dtype_to_descr(array.dtype), "fortran_order": False, "shape": shape}
        npy.write_array_header_2_0(file, description)
    total = math.prod(len(span) for span in spans)
    # Slabs follow each other in the file if all axes before theirs have one voxel.
    axis = next((i for i, span in enumerate(spans) if len(span) > 1), None)
    if axis is None or total == 0:
        file.write(_bytes(array.read(region)))
        return shape
    span = spans[axis]
    row_bytes = max(1, total // len(span) * array.dtype.itemsize)
    with console.progress("reading", len(span)) as progress:
        position = 0
        while position < len(span):
            end = _slab_end(span, position, array.chunks[axis], _SLAB_BYTES // row_bytes)
            part = slice(span[position], span[end - 1] + 1, span.step)
            file.write(_bytes(array.read((*region[:axis], part, *region[axis + 1 :]))))
            progress.advance(end - position)
            position = end
    return shape


def _span(part: text.Part, extent: int) -> range:
    """The indices a part selects. An index outside is left for the array to refuse."""
    return range(*part.indices(extent)) if isinstance(part, slice) else range(1)


def _slab_end(span: range, position: int, chunk: int, rows: int) -> int:
    """Where the slab that starts at `position` ends: about `rows` further, on the last chunk border before that."""
    end = min(len(span), position + max(1, rows))
    if end == len(span):
        return end
    border = span[end] // chunk * chunk
    aligned = -(-(border - span.start) // span.step)
    return aligned if aligned > position else end


def _bytes(data: np.ndarray[Any, Any] | np.generic) -> memoryview | bytes:
    """The voxels in C order, without a copy where they already lie so."""
    voxels = np.ascontiguousarray(data)
    return b"" if voxels.size == 0 else voxels.reshape(-1).view(np.uint8).data


def _write_image(file: BinaryIO, array: vf.Array, region: tuple[text.Part, ...]) -> tuple[tuple[int, ...], str]:
    """Writes a plane as PNG; returns its shape (rows, columns) and what to say about the contrast."""
    spans = [_span(part, extent) for part, extent in zip(region, array.shape, strict=True)]
    plane = tuple(len(span) for span in spans if len(span) != 1)
    if len(plane) != 2:
        raise text.UsageError(
            f"a PNG needs two axes of more than one voxel, the region has {len(plane)} ({text.extents(plane)}); "
            f"fix the others, such as --region {array.axes[0]}=0"
        )
    if 0 in plane:
        raise text.UsageError("the region is empty")
    image, stretched = as_grey(np.asarray(array.read(region)).reshape(plane))
    write_png(file, image)
    if stretched is None:
        return plane, ""
    return plane, f"contrast: {text.number(stretched[0])}..{text.number(stretched[1])} -> 0..255"
