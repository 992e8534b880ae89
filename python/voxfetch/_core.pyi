"""The compiled core: metadata, indexes, plans, decoding, the local engine.

This stub is the one place for the documentation of the compiled module. Nothing in it is public; the public names are
those of the package `voxfetch`. Every function raises classes of `voxfetch.errors` only.

Numbers are voxels unless a name says otherwise. Axes are in the array's own order.
"""

from collections.abc import Sequence
from typing import Any, Self, TypeAlias, final

from numpy.typing import NDArray
from typing_extensions import Buffer

from voxfetch.foreign import Finder
from voxfetch.store import RemoteStore

__all__ = [
    "ArrayMeta",
    "Encoder",
    "HttpClient",
    "LocalArray",
    "LocalEngine",
    "Read",
    "Received",
    "RemoteArray",
    "RemoteEngine",
    "__version__",
    "decode_blosc2",
    "decode_brotli",
    "decode_cutout",
    "fingerprint",
]

__version__: str

def decode_brotli(encoded: bytes, max_nbytes: int) -> bytes:
    """Returns what a stream of Brotli (RFC 7932) decodes to.

    Raises `CodecError` for one that is broken, cut off, followed by other bytes, or of more than `max_nbytes` bytes.
    """

def decode_cutout(
    encoded: Buffer,
    *,
    item_nbytes: int,
    voxels: Sequence[tuple[int, int]],
    block: Sequence[int],
    boxes: Sequence[Sequence[tuple[int, int]]],
) -> list[Received]:
    """Decodes a cutout of BossDB, one Blosc-1 chunk of the box `voxels`, and returns the blocks of each of `boxes`.

    Boxes are [start, end) along t, z, y and x; `boxes` begin and end between blocks of `block` voxels, whose order is
    C, and what of them lies outside of `voxels` is zero. `encoded` is read-only; works without the GIL. Raises
    `CodecError` when the chunk is broken or of another size, `LimitExceededError`.
    """

# An array is a `Buffer`, which numpy's types say from Python 3.12 on only.
_Memory: TypeAlias = Buffer | NDArray[Any]

def fingerprint(content: Buffer) -> int:
    """Returns the XXH3 of 64 bits of some bytes, with seed 0. They are not to change. Works without the GIL."""

@final
class Encoder:
    """Makes stored objects of voxels, for one array at a time or from several threads."""

    def __new__(cls, meta: ArrayMeta) -> Self:
        """Raises `UnsupportedError` for an array that cannot be written."""

    def encode(self, position: Sequence[int], voxels: _Memory) -> bytes | None:
        """Returns the object at these coordinates of the grid, None where all its voxels are the fill value.

        `voxels` are what it holds of the array, in the stored order of the axes. Works without the GIL. Raises
        `ValueError` for a place outside the grid, `InternalError` for voxels of another shape.
        """

def decode_blosc2(chunk: bytes, max_nbytes: int) -> bytes:
    """Returns what the Blosc 2 chunk at the beginning of `chunk` decodes to, at most `max_nbytes` bytes.

    Raises `CodecError` when it is broken or larger, `UnsupportedError` for plugins and dictionaries,
    `LimitExceededError`.
    """

@final
class ArrayMeta:
    """An array as its documents describe it, checked and resolved. Immutable."""

    @staticmethod
    def from_zarr3(document: bytes, foreign: Finder | None = None) -> ArrayMeta:
        """Parses the `zarr.json` of an array (Zarr v3 core spec 3.1, sharding-indexed v1.0).

        `foreign` finds codecs that are decoded in Python: it gets the name, the settings as JSON, and whether what the
        codec encodes are elements of no fixed size; it returns what decodes it, for people to read, and the decoder, or
        None. A decoder is called on any thread, with encoded bytes and the most bytes of the result; its exceptions
        become `CodecError`. Elements of no fixed size it decodes to numbers of 8 bytes, of which 0 is the fill value.

        Raises `MetadataError`, `UnsupportedError` or `LimitExceededError`.
        """

    @staticmethod
    def from_zarr2(document: bytes, dimension_separator: str | None = None, foreign: Finder | None = None) -> ArrayMeta:
        """Parses a `.zarray` (Zarr v2 spec). `dimension_separator` (`.` or `/`) overrides what the document says.
        `foreign` as for `from_zarr3`.

        Raises `MetadataError`, `UnsupportedError` or `LimitExceededError`.
        """

    @staticmethod
    def from_document(document: bytes, format: str) -> ArrayMeta:  # noqa: A002 - the word of the public names
        """Parses the document of an array of a format beside Zarr: `n5`, `precomputed`, `wkw`, `bossdb`.

        Raises `MetadataError`, `UnsupportedError` or `LimitExceededError`, `ValueError` for another format.
        """

    def with_table(
        self,
        files: Sequence[str],
        offsets: _Memory,
        nbytes: _Memory,
        *,
        numbers: _Memory | None = None,
        masks: _Memory | None = None,
        version: tuple[int, int, int, int] | tuple[str | None, str | None, int | None] | None = None,
        clipped: bool = False,
    ) -> ArrayMeta:
        """The array with its chunks where a table says; see `voxfetch.table.ChunkTable` for the parts of it.

        `offsets` and `nbytes` are buffers of uint64, `numbers` and `masks` of uint32, all C-contiguous.

        Raises `MetadataError`, `UnsupportedError` or `LimitExceededError`.
        """

    def check_writable(self) -> None:
        """Raises `UnsupportedError` when one of the codecs is only read."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def origin(self) -> tuple[int, ...]:
        """Coordinates of the first voxel as the users of the format count."""

    @property
    def dtype(self) -> str | list[Any]:
        """What `numpy.dtype` takes, in native byte order: `uint16`, `datetime64[ns]`, a list of (name, type, shape).

        Some names (`bfloat16`, `int4`) numpy knows only with the package ml_dtypes.
        """

    @property
    def item_size(self) -> int:
        """Bytes of one voxel."""

    @property
    def fill_value(self) -> bytes:
        """One voxel in native byte order."""

    @property
    def dimension_names(self) -> tuple[str | None, ...]: ...
    @property
    def chunks(self) -> tuple[int, ...]:
        """Extent of a chunk, the smallest unit that is decoded; the largest along each axis where they differ."""

    @property
    def shards(self) -> tuple[int, ...] | None:
        """Extent of a stored object that holds chunks, None when unsharded."""

    @property
    def codecs(self) -> str:
        """The codecs in encoding order, one line for people, such as `sharding_indexed[transpose, bytes, zstd]`."""

    @property
    def foreign_codecs(self) -> list[str]:
        """Names of the codecs that Python decodes, the innermost first."""

    def key(self, coordinates: Sequence[int]) -> str:
        """Key of the stored object at these grid coordinates, relative to the array."""

@final
class LocalArray:
    """An array in a folder: its metadata, where it lies, how it is read. Immutable."""

    def __new__(
        cls,
        meta: ArrayMeta,
        root: str,
        *,
        document: str,
        max_gap_bytes: int,
        max_request_bytes: int,
        verify_checksums: bool,
        missing_is_error: bool,
        immutable: bool,
        inside: str | None,
    ) -> Self:
        """`root` is the array's folder, `document` the name of its metadata file in there.

        With `immutable` an open file is not compared again with its path. With `inside`, a folder without links in its
        path, a file elsewhere raises `PermissionDeniedError`. `missing_is_error` raises `NotFoundError`
        for chunks that are not stored instead of returning the fill value.
        """

@final
class RemoteArray:
    """An array behind a store: its metadata, where it lies, how it is read. Immutable."""

    def __new__(
        cls,
        meta: ArrayMeta,
        store: RemoteStore,
        path: str,
        *,
        identity: str,
        url: str,
        max_gap_bytes: int,
        max_request_bytes: int,
        verify_checksums: bool,
        missing_is_error: bool,
        trust_s: float,
        trust_missing_s: float,
        interactive: bool,
    ) -> Self:
        """`path` is the key of the array in its store, which `identity` names: equal for arrays whose objects are the
        same. `url` is what messages call the array. What is known of an object is trusted for `trust_s` seconds,
        that it, or a chunk in it, is not stored for `trust_missing_s` at most.
        Reads of an `interactive` array go before others.
        """

@final
class Read:
    """One thing to read and the memory it goes to. Holds a reference to that memory until the read has ended."""

    @staticmethod
    def axes(
        array: LocalArray | RemoteArray, axes: Sequence[tuple[int, int, int] | _Memory], out: _Memory | None
    ) -> Read:
        """The outer product of one selection per axis: (start, step, count) with step >= 1, or an int64 buffer of
        indices in any order, all inside the array.

        `out` exports a writable buffer with one dimension per axis (extent = count), items of `item_size` bytes and
        any strides that do not overlap; None only for `explain`.
        """

    @staticmethod
    def boxes(
        array: LocalArray | RemoteArray,
        starts: _Memory,
        shape: Sequence[int],
        out: _Memory | None,
        *,
        fill_outside: bool,
    ) -> Read:
        """`n` boxes of one shape. `starts` is a C-contiguous int64 buffer (n, ndim), `out` a writable one (n, *shape).

        Boxes may overlap. With `fill_outside` they may reach outside the array, where `out` gets the fill value;
        otherwise a box outside raises `SelectionError`.
        """

    @staticmethod
    def encoded(array: LocalArray | RemoteArray, position: Sequence[int]) -> Read:
        """The bytes of one chunk as they are stored, at these coordinates of the grid of chunks."""

    def taken(self) -> Received | None:
        """Takes those bytes, once, when the read has ended; None where the chunk is not stored."""

    def fill_outside(self) -> None:
        """Fills the boxes of a read of a remote array that reach outside it. Called before the read is submitted."""

    @property
    def store(self) -> Any:
        """The store of a remote array, None for a local one."""

@final
class LocalEngine:
    """Reads arrays from disk: plan, positioned reads, decode and scatter, without the GIL but for codecs of Python.

    Holds worker threads, open files, shard indexes and decoded chunks. Works after `fork`: the child starts its own.
    """

    def __new__(
        cls,
        *,
        threads: int,
        index_cache_bytes: int,
        chunk_cache_bytes: int,
        max_open_files: int,
        in_flight_bytes: int,
    ) -> Self:
        """`chunk_cache_bytes` bounds the decoded chunks kept, of remote arrays too; 0 keeps none.

        `in_flight_bytes` bounds the requests of remote stores on their way, or received and not decoded yet.
        """

    def read(self, reads: Sequence[Read]) -> None:
        """Carries the reads out as one plan and returns when every output is written.

        A few chunks are read on the calling thread, more by the workers too. The first error in plan order is raised,
        with the number of others. Waits are cut so that Ctrl-C raises `KeyboardInterrupt`.
        """

    def submit(self, reads: Sequence[Read], token: int, wake_fd: int) -> None:
        """Starts the reads as one plan on the workers. When they have ended, `token` is kept for `take_completed` and
        8 bytes (the integer 1, native order) are written to the file descriptor `wake_fd`."""

    def take_completed(self, wake_fd: int) -> list[tuple[int, BaseException | None]]:
        """Tokens that ended since the last call for this descriptor, each with its error."""

    def cancel(self, token: int, wake_fd: int) -> None:
        """Stops a submitted read early; it still completes through `take_completed`, with whatever error it has."""

    def explain(self, reads: Sequence[Read], *, fetch_indexes: bool) -> dict[str, int | bool]:
        """What `read` would do: `shards`, `shards_missing`, `chunks`, `chunks_missing`, `requests`, `bytes_needed`,
        `bytes_fetched`, `bytes_from_cache`, `round_trips`, `exact`. Never reads data; reads indexes that are not
        cached only with `fetch_indexes` (without it `exact` may be False). Chunks that are kept decoded count as
        `bytes_from_cache`; where they may be gone when the read gets to them, `exact` is False."""

    def verify(self, array: LocalArray) -> dict[str, Any]:
        """Reads and decodes every stored chunk with all checksums.

        Returns `objects`, `objects_missing`, `chunks`, `chunks_missing`, `bytes`, and `problems`: a list of exceptions
        (at most 1,000; `problem_count` counts all).
        """

    def write(self, array: LocalArray, start: Sequence[int], data: _Memory) -> None:
        """Writes a box that covers whole stored objects (clipped at the array's end), each through a temporary file
        and a rename. `data` has one dimension per axis and any strides; for an array without axes, one of extent 1.

        Raises `UnsupportedError` when the box covers part of a stored object, or a codec cannot be written.
        """

    def stats(self) -> dict[str, int]:
        """Counters since the start: `reads`, `requests`, `bytes_read`, `chunks_decoded`, `bytes_decoded`,
        `chunks_missing`, `index_hits`, `index_misses`, `index_cache_bytes`, `chunk_cache_hits`, `chunk_cache_misses`,
        `chunk_cache_bytes`, `open_files`, `threads`."""

    def close(self) -> None:
        """Ends the workers, closes files and forgets decoded chunks. A later call starts them again."""

@final
class Received(Buffer):
    """Bytes that came over HTTP, read-only, through the buffer protocol."""

    def __len__(self) -> int: ...

@final
class HttpClient:
    """Connections of one process and the thread that serves them. Requests may come from any thread."""

    def __new__(cls, wake_fd: int, idle_timeout_s: float) -> Self:
        """8 bytes are written to `wake_fd` when `take` has something. Raises `OSError` where there is no thread."""

    def get(self, requests: Sequence[tuple[int, tuple[str, dict[str, str], tuple[int, int, bool]]]]) -> None:
        """Sends GETs: token; URL, headers and limits, `part`, `whole`, `sized`, each.

        Of a reply at most `part` bytes of a 206 and `whole` bytes of a 200 are read. `sized`: a 200 that does not say
        its length is left unread. Nothing is followed, decoded or tried again, but for a kept connection that the
        server has closed meanwhile.
        """

    def land(
        self,
        engine: RemoteEngine,
        requests: Sequence[
            tuple[
                int,
                tuple[int | None, int | None, int | None, str | None, int],
                tuple[str, dict[str, str], tuple[int, int, bool]],
            ]
        ],
    ) -> None:
        """Sends GETs as `get` does, for requests of `engine`; its numbers are the tokens, apart from those of `get`.

        Before each: start, end, suffix, ETag, most bytes, as `RemoteEngine.turn` gives them. A reply that is exactly
        what is asked for is handed in on the client's thread (see `RemoteEngine.landed`); any other is for `take`.
        """

    def cancel(self, token: int, lands: bool = False) -> None:
        """Drops a request of `get`, or of `land`, and its connection. It may have ended already."""

    def take(self) -> list[tuple[int, bool, int, dict[str, str], Received | None, str, int | None]]:
        """What has ended since it was last asked: token, whether of `land`; status, headers, body; failure, errno.

        The body is None where it is longer than allowed, or ends one byte after that; of a status other than 2xx it is
        the start of an explanation. The kind is empty for a reply. Where it is not, the status (0: none) is that of a
        reply whose body did not come. Kinds: `url`, `name`, `connect`, `certificate`, `tls`, `trust`,
        `timeout`, `stalled` (in the body), `closed` (before a reply), `short`, `lost`, `not http`, `internal`.
        """

    def close(self) -> None:
        """Drops everything and waits for the thread."""

@final
class RemoteEngine:
    """The remote reads of an engine in one process, for the one thread that owns the network.

    Calls go in, requests come out; replies go in, endings come out. Decoding runs on the engine's workers, without the
    GIL but for codecs of Python. Nothing here waits.
    """

    def __new__(cls, local: LocalEngine) -> Self: ...
    def wake(self, fd: int | None) -> None:
        """Sets the descriptor to which 8 bytes are written when `turn` has something."""

    def submit(self, calls: Sequence[tuple[int, Sequence[Read]]], mode: str) -> list[tuple[int, BaseException]]:
        """Starts calls, (token, reads of remote arrays) each, as one plan.

        `mode` is `read`, `check` (everything is decoded, problems are listed), `explain` (only indexes are fetched) or
        `explain known` (nothing is). Returns the tokens of those that cannot be planned, with the reason.
        """

    def body(
        self, number: int, body: Buffer, *, start: int, total: int | None, etag: str | None, modified: str | None
    ) -> None:
        """Hands in the reply to a request: read-only bytes from `start` of an object of `total` bytes.

        `etag` is a strong one.
        """

    def landed(self, wait: bool) -> list[int]:
        """The requests of `HttpClient.land` that have been handed in since it was last asked.

        `wait`: whether the descriptor is written to at each from now on; else only where there is something for `turn`.
        """

    def error(self, number: int, failure: str | BaseException) -> None:
        """Hands in the end of a request without a body: "absent", "changed", or what was raised."""

    def cancel(self, token: int) -> list[int]:
        """Starts nothing more for a call; it still ends. Returns the requests that nobody waits for any more."""

    def turn(
        self, most: int
    ) -> tuple[
        list[tuple[int, BaseException | None, dict[str, Any]]],
        list[tuple[int, str, str, int | None, int | None, int | None, str | None, int]],
    ]:
        """The calls that have ended since it was last asked: token, error, report; their memory is released. And the
        requests to send next, at most `most`: number, identity of the store, key, start, end, suffix, ETag that the
        object must still have, most bytes.
        """
