"""`Array`: a chunked n-D array, read by index expressions, boxes, points and blocks.

An `Array` holds what its documents say and how it is read; it opens no file and holds no thread. Every read becomes
`_core.Read` values (what, and into which memory) that its engine carries out as one plan. Outputs are numpy arrays
made here (or given as `out`), written by the core in place.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, cast

import numpy as np

from voxfetch import _core
from voxfetch.blocks import Blocks
from voxfetch.documents import RemoteDocuments
from voxfetch.dtypes import numpy_dtype
from voxfetch.engine import Engine, default_engine, run_in_thread
from voxfetch.errors import LimitExceededError, ReadOnlyError, SelectionError, UnsupportedError
from voxfetch.handle import array_meta, local_array, remote_array
from voxfetch.indexer import Indexer
from voxfetch.node import Format, document_name, parse_json
from voxfetch.object_reads import ObjectReads, object_fill_value
from voxfetch.objects import Objects
from voxfetch.options import ReadOptions, ReadReport, VerifyReport
from voxfetch.pieces import Alone
from voxfetch.reads import Bounds, Job, Reads
from voxfetch.resources import available_memory_bytes
from voxfetch.selection import Boxes, axes_order, parse_start
from voxfetch.store import CuttingStore, join_key
from voxfetch.store.local import LocalStore, file_url
from voxfetch.stored import Stored

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray
    from typing_extensions import Buffer

    from voxfetch.node import Node

__all__ = ["Array"]

_T = TypeVar("_T")


class Array:
    """A chunked n-D array in a store; made by `voxfetch.open`, `open_array` and `create`.

    Indices are 0-based. Results are numpy arrays in native byte order that belong to the caller. Every method that
    reads has a twin with `_async` at the end. Usable from any thread; pickles small, without reading metadata again.
    """

    def __init__(self, node: Node, *, axes: Sequence[str] | None = None) -> None:
        """`axes` names the axes when the array's own document does not.

        Raises `MetadataError`, `UnsupportedError` or `LimitExceededError` for documents that cannot be read.
        """
        self._root = node.store.place(node.path)
        self._remote = node.store.remote if isinstance(node.store, RemoteDocuments) else None
        self._path = node.path
        self._table = node.table
        # The keys of a table begin at the root of the store.
        self._base = self._root if node.table is None else node.store.place("")
        # The files of a table are named by its document, within what that may name.
        self._inside = node.store.inside if isinstance(node.store, LocalStore) and node.table is None else None
        self._format: Format = node.format
        self._document = node.document
        self._separator = node.settings.dimension_separator if node.format == "zarr2" else None
        # Zarr v3 has the attributes in the document: they are parsed again where they are asked for after a pickle.
        self._attributes = None if node.format == "zarr3" else node.attributes
        self._names = node.axes if axes is None else tuple(axes)
        self._order: tuple[int, ...] | None = None
        self._options = node.settings.read_options
        self._mode = node.settings.mode
        self._engine = node.settings.engine
        self._prepare()
        if self._names is None and node.format == "zarr2":
            # As xarray keeps them.
            names = node.attributes.get("_ARRAY_DIMENSIONS")
            listed = cast("list[object]", names) if isinstance(names, list) else []
            if listed and len(listed) == len(self._shape) and all(isinstance(name, str) for name in listed):
                self._names = tuple(cast("list[str]", names))
                self._prepare()

    def _prepare(self) -> None:
        """Derives everything that is not pickled."""
        key, table = join_key(self._root, self._document_name), self._table
        document_meta = partial(array_meta, self._document, self._format, self._separator, key)

        def described(objects: Objects) -> _core.ArrayMeta:
            meta = document_meta(objects)
            return meta if table is None else table.meta(meta, key)

        self._meta = meta = described(Objects(keeps=False))
        alone = None
        if self._remote is None:
            document = self._document_name if table is None else table.files[0]
            placed = partial(
                local_array, root=self._base, document=document, options=self._options, inside=self._inside
            )
        else:
            path = self._path if table is None else ""
            placed = partial(remote_array, store=self._remote, path=path, url=self._base, options=self._options)
            if isinstance(self._remote, CuttingStore):
                alone = Alone(meta, self._remote, path, self._base, self._options, self._engine)
        self._core_array = placed(meta)
        self._dtype = numpy_dtype(meta.dtype, self._root)
        if self._names is not None and len(self._names) != len(meta.shape):
            raise SelectionError(f"{len(self._names)} names for an array with {len(meta.shape)} axes", key=self._root)
        names = self._names or tuple(name or f"dim_{axis}" for axis, name in enumerate(meta.dimension_names))
        self._axes = self._in_view(names)
        self._shape = self._in_view(meta.shape)
        self._chunks = self._in_view(meta.chunks)
        self._shards = None if meta.shards is None else self._in_view(meta.shards)
        dtype = np.dtype(np.uint64) if self._dtype.hasobject else self._dtype
        reads = Reads(self._core_array, self._shape, dtype, self._order, self.origin, self._root, alone)
        self._reads: Reads | ObjectReads = reads
        if self._dtype.hasobject:
            fill = object_fill_value(self._document, meta.foreign_codecs[0], key)
            self._reads = ObjectReads(reads, lambda objects: placed(described(objects)), fill)

    @property
    def _document_name(self) -> str:
        # What says of a precomputed volume that it is there lies above the folder of its scale.
        return ".." if self._format == "precomputed" else document_name(self._format, "array")

    # --- what it is

    @property
    def shape(self) -> tuple[int, ...]:
        """Extent of each axis in voxels."""
        return self._shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of a voxel, in native byte order whatever the stored one is; `object` where they have no fixed size."""
        return self._dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self._shape)

    @property
    def size(self) -> int:
        """Number of voxels."""
        return math.prod(self._shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the whole array when read; of objects those of the references to them."""
        return self.size * self._dtype.itemsize

    @property
    def axes(self) -> tuple[str, ...]:
        """Name of each axis: from the metadata, else `dim_0`, `dim_1`, ..."""
        return self._axes

    @property
    def chunks(self) -> tuple[int, ...]:
        """Extent of a chunk, the smallest unit that is decoded, in voxels.

        Where chunks differ in extent (rectilinear grids) it is the largest along each axis.
        """
        return self._chunks

    @property
    def shards(self) -> tuple[int, ...] | None:
        """Extent of a shard, the stored object that holds chunks, in voxels; None when unsharded.

        Where shards differ in extent it is the largest along each axis.
        """
        return self._shards

    @property
    def fill_value(self) -> Any:
        """Value of voxels that are not stored, a numpy scalar."""
        if isinstance(self._reads, ObjectReads):
            return self._reads.fill
        return np.frombuffer(self._meta.fill_value, self._dtype)[0]

    @property
    def has_fill_value(self) -> bool:
        """False where the document says that there is none (Zarr v2): what is not stored is zero then."""
        if self._format != "zarr2":
            return True
        return parse_json(self._document, f"{self._root}/{self._document_name}").get("fill_value") is not None

    @property
    def attrs(self) -> Mapping[str, Any]:
        """Attributes of the array, read-only."""
        if self._attributes is None:
            document = parse_json(self._document, f"{self._root}/{self._document_name}")
            self._attributes = cast("dict[str, Any]", document.get("attributes", {}))
        return MappingProxyType(dict(self._attributes))

    @property
    def codecs(self) -> str:
        """The codecs in encoding order, for people to read."""
        return self._meta.codecs

    @property
    def format(self) -> str:
        """`zarr3`, `zarr2`, `n5`, `precomputed`, `wkw`, `b2nd`, `hdf5` or `bossdb`."""
        return self._format

    @property
    def is_reordered(self) -> bool:
        """Whether this is a view (`with_axes`) with the axes in another order than the stored one."""
        return self._order is not None

    @property
    def document(self) -> bytes:
        """The metadata document of a Zarr array (`zarr.json`, `.zarray`), as stored; of others what stands for it."""
        return self._document

    @property
    def url(self) -> str:
        """URL of the array."""
        return file_url(self._root) if self._remote is None else self._root

    @property
    def origin(self) -> tuple[int, ...]:
        """Coordinates of the first voxel where `absolute=True` is given; zeros for Zarr."""
        return self._in_view(self._meta.origin)

    @property
    def engine(self) -> Engine:
        """The engine that reads it: the one it was opened with, else the default engine of this process."""
        return self._engine or default_engine()

    @property
    def stored(self) -> Stored:
        """The objects that it is stored in, as bytes; of an array in a file, such as HDF5, that file."""
        file = self._table.files[0] if self._table is not None and self._format in ("hdf5", "b2nd") else None
        if self._remote is not None:
            return Stored(RemoteDocuments(self._remote, self._engine), self._path if file is None else file)
        return Stored(LocalStore(self._root if file is None else self._base), file or "")

    # --- reading

    def __getitem__(self, selection: Any) -> Any:
        """Reads by an expression of ints, slices (step >= 1) and an Ellipsis; all ints give a numpy scalar.

        Slices clip, ints do not. Raises `SelectionError` for anything else, and what `read` raises.
        """
        return self._run(self._reads.basic(selection))

    def read(self, selection: Any = ..., *, out: Any = None, order: Literal["C", "F"] = "C") -> Any:
        """Reads a selection, into `out` if given, which is then returned.

        `out` has exactly the selection's shape and this dtype (any strides that do not overlap), or is a writable 1-D
        byte buffer of as many bytes (filled in C order). `order` is the memory order of a new result.

        Raises `SelectionError`, `DataError`, `NotFoundError`, `StoreError`, `LimitExceededError`.
        """
        return self._run(self._reads.basic(selection, out, order))

    async def read_async(self, selection: Any = ..., *, out: Any = None, order: Literal["C", "F"] = "C") -> Any:
        """Async twin of `read`. When it is cancelled, `out` may still be written for a moment."""
        return await self._run_async(self._reads.basic(selection, out, order))

    def read_box(
        self,
        start: Sequence[int],
        shape: Sequence[int] | int,
        *,
        absolute: bool = False,
        bounds: Bounds = "raise",
        out: Any = None,
    ) -> NDArray[Any]:
        """Reads the box of `shape` voxels at `start`: always exactly that shape.

        Negative starts are places before the array, not counted from its end. A box that reaches outside raises
        `SelectionError`, or with `bounds="fill"` gets the fill value there. `absolute` takes `start` as coordinates in
        which the first voxel is at `origin`. `out` and errors as in `read`.
        """
        return self._run(self._reads.box(start, shape, absolute=absolute, bounds=bounds, out=out))

    async def read_box_async(
        self,
        start: Sequence[int],
        shape: Sequence[int] | int,
        *,
        absolute: bool = False,
        bounds: Bounds = "raise",
        out: Any = None,
    ) -> NDArray[Any]:
        """Async twin of `read_box`."""
        return await self._run_async(self._reads.box(start, shape, absolute=absolute, bounds=bounds, out=out))

    def read_many(
        self,
        starts: Any,
        shape: Sequence[int] | int,
        *,
        absolute: bool = False,
        bounds: Bounds = "raise",
        out: Any = None,
    ) -> NDArray[Any]:
        """Reads boxes of one shape at `starts` (N, ndim) as one plan: each chunk is decoded once. Returns (N, *shape).

        Parameters and errors as in `read_box`.
        """
        return self._run(self._reads.boxes(starts, shape, absolute=absolute, bounds=bounds, out=out))

    async def read_many_async(
        self,
        starts: Any,
        shape: Sequence[int] | int,
        *,
        absolute: bool = False,
        bounds: Bounds = "raise",
        out: Any = None,
    ) -> NDArray[Any]:
        """Async twin of `read_many`."""
        return await self._run_async(self._reads.boxes(starts, shape, absolute=absolute, bounds=bounds, out=out))

    def read_points(self, coords: Any, *, bounds: Bounds = "raise") -> NDArray[Any]:
        """Reads single voxels at `coords` (N, ndim); returns (N,). Bounds and errors as in `read_box`."""
        return self._run(self._reads.boxes(coords, 1, bounds=bounds)).reshape(-1)

    async def read_points_async(self, coords: Any, *, bounds: Bounds = "raise") -> NDArray[Any]:
        """Async twin of `read_points`."""
        return (await self._run_async(self._reads.boxes(coords, 1, bounds=bounds))).reshape(-1)

    def read_encoded(self, position: Sequence[int]) -> memoryview | None:
        """Returns the bytes of one chunk as they are stored, neither decoded nor checked; None when it is not stored.

        `position` are the chunk's coordinates in the grid of `chunks`. Where there are shards, the bytes are a part of
        one. They are read-only, in memory of their own; `bytes` copies them. Raises `SelectionError` for a place
        outside the grid, `UnsupportedError` where the service stores no chunks (BossDB), and what `read` raises of
        stores and indexes.
        """
        read, engine = self._encoded(position)
        engine.read([read])
        return _view(read.taken())

    async def read_encoded_async(self, position: Sequence[int]) -> memoryview | None:
        """Async twin of `read_encoded`."""
        read, engine = self._encoded(position)
        await engine.run([read])
        return _view(read.taken())

    def _encoded(self, position: Sequence[int]) -> tuple[_core.Read, Engine]:
        # Of None a protocol takes microseconds to say no.
        if self._remote is not None and isinstance(self._remote, CuttingStore):
            raise UnsupportedError("the service stores no chunks", key=self._root, hint="read voxels instead")
        # What is not stored is an answer here, not an error.
        source = self if self._options.on_missing == "fill" else self.with_options(_filling(self._options))
        places = parse_start(position, len(self._shape))
        if any(place < 0 for place in places):
            raise SelectionError(f"no chunk {places}", key=self._root, hint="coordinates of chunks begin at 0")
        stored = places if self._order is None else tuple(places[self._order.index(k)] for k in range(len(places)))
        return _core.Read.encoded(source._core_array, stored), self.engine

    @property
    def oindex(self) -> Indexer:
        """`a.oindex[...]`: an int, slice, 1-D index array or 1-D mask per axis; the result is their outer product."""
        return Indexer(self.engine, self._reads.outer)

    @property
    def vindex(self) -> Indexer:
        """`a.vindex[...]`: index arrays that broadcast together, one point per element; or a mask of the whole array.

        Axes selected by a slice (step 1) come after the broadcast shape in the result.
        """
        return Indexer(self.engine, self._reads.points)

    def blocks(
        self,
        shape: Sequence[int] | int,
        *,
        halo: Sequence[int] | int = 0,
        order: Literal["shard", "C"] = "shard",
        prefetch: int | None = None,
    ) -> Blocks:
        """Iterates (`for` and `async for`) over the whole array as pairs (box, block), reading ahead.

        `box` has `start` and `shape` of the block without halo, clipped at the array's end; `block` has
        `box.shape + 2 * halo` voxels, the fill value where it reaches outside the array. With `order="shard"` blocks
        that start in the same shard come together; "C" is the plain order. `prefetch` counts the blocks read ahead
        (None: enough to keep the workers busy within a quarter of the engine's memory; 0: none).
        """
        return Blocks(self, shape, halo=halo, order=order, prefetch=prefetch)

    def to_dask(self, chunks: Any = None) -> Any:
        """Returns the array as a lazy `dask.array.Array`, which reads its blocks when it is computed, and nothing here.

        Blocks are whole shards. Without shards they are whole chunks, as many as fit into dask's `array.chunk-size`
        (128 MiB). `chunks` takes what dask takes: an int is rounded up to whole chunks, so that none is read twice;
        "auto" and sizes such as "64 MiB" become as many whole chunks, and past its end shards, as fit; extents that
        are given one by one (`((100, 150), (250,))`), -1 and None (the whole axis) are taken as they are.

        The same array has the same name in every process, and another one where documents, options or axes differ.
        Needs dask (`ImportError`); raises `ValueError` for `chunks` that do not fit the array.
        """
        from voxfetch.dask import to_dask

        return to_dask(self, chunks)

    # --- reports

    def explain(self, selection: Any = ..., *, fetch_indexes: bool = True) -> ReadReport:
        """Returns what reading the selection would need; reads shard indexes (unless told not to), never data."""
        return self._explained(selection, fetch_indexes)

    async def explain_async(self, selection: Any = ..., *, fetch_indexes: bool = True) -> ReadReport:
        """Async twin of `explain`."""
        if self._remote is None and not fetch_indexes:
            return self._explained(selection, fetch_indexes)  # nothing is waited for
        return await run_in_thread(lambda: self._explained(selection, fetch_indexes))

    def verify(self) -> VerifyReport:
        """Reads and decodes everything that is stored, with all checksums; returns what is wrong."""
        if isinstance(self._core_array, _core.LocalArray):
            report = self.engine.core.verify(self._core_array)
            report["problems"] = tuple(report["problems"])
            return VerifyReport(**report)
        full = self._replaced(_options=replace(self._options, verify="full", on_missing="fill"), _order=None)
        everything = [(0, 1, extent) for extent in self._meta.shape]
        found = self.engine.report(_core.Read.axes(full._core_array, everything, None), "check")
        return VerifyReport(
            objects=found["shards"] - found["shards_missing"],
            objects_missing=found["shards_missing"],
            chunks=found["chunks"] - found["chunks_missing"],
            chunks_missing=found["chunks_missing"],
            bytes=found["bytes_fetched"],
            problem_count=found["problem_count"],
            problems=tuple(found["problems"]),
        )

    async def verify_async(self) -> VerifyReport:
        """Async twin of `verify`."""
        return await run_in_thread(self.verify)

    def _explained(self, selection: object, fetch_indexes: bool) -> ReadReport:  # noqa: FBT001 - internal
        read = self._reads.explained(selection)
        if self._remote is None:
            report: dict[str, Any] = self.engine.core.explain([read], fetch_indexes=fetch_indexes)
        else:
            report = self.engine.report(read, "explain" if fetch_indexes else "explain known")
        report["in_python"] = tuple(self._meta.foreign_codecs)
        return ReadReport(**{name: report[name] for name in ReadReport.__slots__})

    # --- other handles on the same array

    def with_options(self, options: ReadOptions) -> Self:
        """Returns the same array, read with other options."""
        if not isinstance(cast("object", options), ReadOptions):
            raise TypeError(f"voxfetch.ReadOptions(...) was expected, not {type(options).__name__}")
        return self._replaced(_options=options)

    def with_axes(self, axes: str | Sequence[str]) -> Self:
        """Returns a view with the axes in this order, such as "zyx"; costs nothing, reads write transposed."""
        order = axes_order(axes, self._axes)
        current = self._order or tuple(range(len(self._shape)))
        return self._permuted(order, tuple(current[axis] for axis in order))

    def _permuted(self, order: tuple[int, ...], stored: tuple[int, ...]) -> Self:
        """Axis k of the view is axis `order[k]` of this one, and axis `stored[k]` of the stored array."""
        del order  # for subclasses with more to permute
        return self._replaced(_order=None if stored == tuple(range(len(stored))) else stored)

    def _replaced(self, **changes: object) -> Self:
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other.__dict__.update(changes)
        other._prepare()
        return other

    # --- writing

    def __setitem__(self, selection: Any, value: Any) -> None:
        """Writes whole shards (whole chunks when unsharded): the selection covers each one it touches, up to the end.

        `value` broadcasts to the selection; its type may not lose the kind of number. Each stored object is replaced
        atomically. Raises `ReadOnlyError`, `SelectionError`, and `UnsupportedError` for anything partial.
        """
        if self._mode != "r+":
            raise ReadOnlyError('this array is open for reading; open it with mode="r+" to write', key=self._root)
        if not isinstance(self._core_array, _core.LocalArray):
            raise UnsupportedError("remote arrays are not written by this version", key=self._root)
        start, data = self._reads.box_to_write(selection, value)
        if data.size:
            self.engine.core.write(self._core_array, start, data if data.ndim else data.reshape(1))

    # --- as seen by numpy, dask, people

    def __len__(self) -> int:
        """Extent of the first axis."""
        if not self._shape:
            raise TypeError("an array without axes has no length")
        return self._shape[0]

    def __iter__(self) -> Iterator[Any]:
        """Refused: it would read plane after plane, each from the same chunks."""
        raise TypeError("iterate with .blocks(shape), or read a part with [...]")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:  # noqa: FBT001 - numpy's protocol
        """Reads everything. Raises `LimitExceededError` when that is more than the memory that is available."""
        if copy is False:
            raise ValueError("reading always makes a new array")
        available = available_memory_bytes()
        if available is not None and self.nbytes > available:
            message = f"the whole array has {self.nbytes:,} bytes, {available:,} are available"
            raise LimitExceededError(message, key=self._root, hint="read a part with [...], or iterate with .blocks()")
        result = cast("NDArray[Any]", self.read(...))
        return result if dtype is None else result.astype(dtype, copy=False)

    def __repr__(self) -> str:
        shards = "" if self._shards is None else f", shards {self._shards}"
        return (
            f"<voxfetch.{type(self).__name__} {self._dtype} {self._shape} ({_printable(', '.join(self._axes))}), "
            f"chunks {self._chunks}{shards}, {self.codecs}, {self._format}, {self.url}>"
        )

    def _repr_html_(self) -> str:
        from html import escape

        rows = {
            "shape": f"{self._shape} ({', '.join(self._axes)})",
            "type": f"{self._dtype}, {self.nbytes:,} bytes",
            "chunks": str(self._chunks),
            "shards": "none" if self._shards is None else str(self._shards),
            "codecs": self.codecs,
            "format": self._format,
            "url": self.url,
        }
        cells = "".join(f"<tr><th>{name}</th><td>{escape(value)}</td></tr>" for name, value in rows.items())
        return f"<table><caption>voxfetch.{type(self).__name__}</caption>{cells}</table>"

    def _identity(self) -> tuple[object, ...]:
        return (self._root, self._format, self._document, self._separator, self._axes, self._order, self._options)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Array) and self._identity() == other._identity() and self._remote == other._remote

    def __hash__(self) -> int:
        return hash(self._identity())

    def __dask_tokenize__(self) -> tuple[object, ...]:
        """Names the array for dask: where it lies, what its documents say, how it is read."""
        from hashlib import blake2b

        # How a store is reached may be a secret.
        reached = "" if self._remote is None else blake2b(self._remote.identity.encode(), digest_size=16).hexdigest()
        version = None if self._table is None else self._table.version
        return (f"voxfetch.{type(self).__name__}", self.url, reached, version, *self._identity())

    def __copy__(self) -> Self:
        """Itself, with its engine: nothing of it changes."""
        return self

    def __deepcopy__(self, memo: object) -> Self:
        """Itself, with its engine: nothing of it changes."""
        return self

    def __getstate__(self) -> dict[str, Any]:
        # The engine belongs to its process; the attributes of Zarr v3 are in the document.
        dropped = _DERIVED | {"_attributes"} if self._format == "zarr3" else _DERIVED
        state = {name: value for name, value in self.__dict__.items() if name not in dropped}
        state["_engine"] = None
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._attributes = None
        self.__dict__.update(state)
        self._prepare()

    # --- for the modules of this package

    @property
    def is_remote(self) -> bool:
        """True when it lies behind a network."""
        return self._remote is not None

    def job(self, selection: object) -> Job:
        """The read of `a[selection]`, or of `Boxes`, not yet carried out."""
        if isinstance(selection, Boxes):
            return self._reads.boxes(
                selection.starts,
                selection.shape,
                absolute=selection.absolute,
                bounds=selection.bounds,
                out=selection.out,
            )
        return self._reads.basic(selection)

    def box_job(self, start: tuple[int, ...], shape: tuple[int, ...]) -> Job:
        """The read of a box that may reach outside, not yet carried out."""
        return self._reads.box(start, shape, bounds="fill")

    async def _run_async(self, job: Job) -> Any:
        if job.reads:
            await self.engine.run(job.reads)
        return job.result

    def _run(self, job: Job) -> Any:
        if job.reads:
            self.engine.read(job.reads)
        return job.result

    def _in_view(self, values: Sequence[_T]) -> tuple[_T, ...]:
        """One value per stored axis -> in the order of this view."""
        return tuple(values) if self._order is None else tuple(values[axis] for axis in self._order)


def _view(taken: Buffer | None) -> memoryview | None:
    return None if taken is None else memoryview(taken)


def _filling(options: ReadOptions) -> ReadOptions:
    return replace(options, on_missing="fill")


_DERIVED = frozenset({"_meta", "_core_array", "_dtype", "_axes", "_shape", "_chunks", "_shards", "_reads"})


def _printable(text: str) -> str:
    """Names from a file, without the control characters that a terminal would obey."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
