"""`ZarrPipeline`: the codec pipeline of zarr-python whose reads are carried out by an engine of voxfetch.

zarr hands over a batch: the stored objects of one selection. They become one plan of the default engine. Everything
else (encoding, writing, the inner pipelines of zarr's sharding codec) is zarr's own. What is not understood is read by
zarr, counted in `report`, and an error where `zarr.config` has `codec_pipeline.strict`.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

import numpy as np
from zarr.codecs._v2 import V2Codec
from zarr.core.array import Array, AsyncArray
from zarr.core.codec_pipeline import BatchedCodecPipeline
from zarr.core.common import concurrent_map
from zarr.core.config import config
from zarr.core.metadata.v2 import ArrayV2Metadata
from zarr.registry import register_pipeline

from voxfetch.engine import default_engine
from voxfetch.errors import NotFoundError, UnsupportedError
from voxfetch.zarr.batch import Batch, Output, understood
from voxfetch.zarr.counts import Counts, Report, whole
from voxfetch.zarr.handles import Handles

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from voxfetch.zarr.batch import Item

__all__ = ["ZarrPipeline", "accelerate", "report"]

_A = TypeVar("_A")
_SELECTION = "a selection that is not one of zarr's own"
_PRESENT, _MISSING = {"status": "present"}, {"status": "missing"}


class _State:
    """What a pipeline derives from its array: made on first use in a process, never pickled."""

    def __init__(self, metadata: Any, store: Any) -> None:
        self.counts = Counts()
        self._handles: Handles | UnsupportedError
        try:
            with understood("metadata that is not understood"):
                self._handles = Handles(metadata, store)
        except UnsupportedError as error:
            self._handles = error

    @property
    def handles(self) -> Handles:
        if isinstance(self._handles, UnsupportedError):
            raise UnsupportedError(self._handles.message, hint=self._handles.hint)
        return self._handles


@dataclass(frozen=True)
class ZarrPipeline(BatchedCodecPipeline):
    """Codec pipeline for zarr-python 3: reads by voxfetch, writes by zarr.

    `zarr.config.set({"codec_pipeline.path": "voxfetch.ZarrPipeline"})`, or the environment variable
    `ZARR_CODEC_PIPELINE__PATH`, makes the arrays that are opened afterwards use it; `voxfetch.accelerate(array)` makes
    one. Reads give what the store holds at that moment, as zarr's own do. Reads that it does not understand, and arrays
    with codecs or types that voxfetch does not read, go through zarr's own codecs: see `voxfetch.zarr.report`. With
    `codec_pipeline.strict` in `zarr.config` they raise `UnsupportedError`.

    Reads raise the errors of voxfetch: `DataError`, `StoreError`, `NotFoundError` and others. Requests are bounded by
    the default engine, not by `async.concurrency` of `zarr.config`.
    """

    __module__ = "voxfetch"  # by which zarr's registry and pickle know it

    metadata: Any = field(default=None, repr=False, hash=False)
    store: Any = field(default=None, repr=False, hash=False)

    @classmethod
    def from_array_metadata_and_store(cls, array_metadata: Any, store: Any) -> Self:
        """Returns the pipeline of an array in a store of zarr. Nothing is read."""
        if isinstance(array_metadata, ArrayV2Metadata):
            codec = V2Codec(filters=array_metadata.filters, compressor=array_metadata.compressor)
            plain = cls.from_codecs([codec])
        else:
            plain = cls.from_codecs(array_metadata.codecs)
        return replace(plain, metadata=array_metadata, store=store)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_state"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    @property
    def state(self) -> _State:
        """What is derived of the array."""
        state = self.__dict__.get("_state")
        return self.__dict__.setdefault("_state", _State(self.metadata, self.store)) if state is None else state

    async def read(  # pyright: ignore[reportIncompatibleMethodOverride] - differs between the versions of zarr
        self, batch_info: Iterable[Any], out: Any, drop_axes: tuple[int, ...] = ()
    ) -> Any:
        """Reads a batch into `out`. Returns, as zarr 3.3 wants it, whether each stored object is there.

        Where the array fills what is missing, all are said to be there: nobody asks then.
        """
        items = cast("Sequence[Item]", list(batch_info))
        if self.metadata is None or not items:
            return await super().read(items, out, drop_axes)
        state = self.state
        try:
            found = await self._read(state.handles, items, out, drop_axes)
        except UnsupportedError as error:
            if config.get("codec_pipeline.strict", False):
                raise
            reason = error.message
        except Exception:
            _count(state)
            raise
        else:
            _count(state)
            return found
        _count(state, reason)
        return await super().read(items, out, drop_axes)

    async def _read(
        self, handles: Handles, items: Sequence[Item], out: Any, drop_axes: tuple[int, ...]
    ) -> tuple[dict[str, str], ...]:
        getter, spec = items[0][:2]
        if getattr(getter, "store", None) is not handles.store:
            raise UnsupportedError("a store that is not the one of the array")
        memory = out.as_ndarray_like()
        if not isinstance(memory, np.ndarray) or not memory.flags.writeable:
            raise UnsupportedError("an output that is no array of numpy")
        array = cast("NDArray[Any]", memory).view(np.ndarray)

        with understood(_SELECTION):
            batch = Batch(items, handles.grid)

        async def run(*, missing_is_error: bool) -> None:
            core = handles.of(batch.path, batch.objects, spec.prototype, missing_is_error=missing_is_error)
            output = Output(array, handles.dtype, drop_axes)
            with understood(_SELECTION):
                read = batch.read(core, output)
            await default_engine().run([read])
            output.finish()

        if getattr(spec.config, "read_missing_chunks", True):
            await run(missing_is_error=False)
            return (_PRESENT,) * len(items)
        try:
            await run(missing_is_error=True)
        except NotFoundError:
            there = await concurrent_map([(item[0],) for item in items], _exists, config.get("async.concurrency"))
            # Chunks that a shard does not have are the fill value, as in zarr's own pipelines.
            await run(missing_is_error=False)
            return tuple(_PRESENT if one else _MISSING for one in there)
        return (_PRESENT,) * len(items)


def _count(state: _State, reason: str = "") -> None:
    state.counts.add(reason)
    whole.add(reason)


async def _exists(getter: Any) -> bool:
    return await getter.exists()


register_pipeline(ZarrPipeline)


def accelerate(array: _A) -> _A:
    """Returns the same zarr array, read through `ZarrPipeline`; the given one is left as it is.

    `array` is an `Array` or `AsyncArray` of zarr. Raises `UnsupportedError`, with the reason, for one that voxfetch
    does not read, `TypeError` for anything else.
    """
    given: Any = array
    inner: Any = given
    if isinstance(given, Array):
        inner = cast("Any", given)._async_array
    elif not isinstance(given, AsyncArray):
        raise TypeError(f"an Array or AsyncArray of zarr was expected, not {type(array).__name__}")
    pipeline = ZarrPipeline.from_array_metadata_and_store(inner.metadata, inner.store_path.store)
    _ = pipeline.state.handles
    faster = copy.copy(inner)
    object.__setattr__(faster, "codec_pipeline", pipeline)
    return faster if inner is array else type(array)(faster)  # pyright: ignore[reportCallIssue]


def report(array: Any = None) -> Report:
    """Returns how many reads were accelerated in this process: of all arrays, or of one array object of zarr.

    Raises `TypeError` for an array that does not use `ZarrPipeline`.
    """
    if array is None:
        return whole.report()
    pipeline = getattr(array, "_async_array", array).codec_pipeline
    if not isinstance(pipeline, ZarrPipeline):
        raise TypeError("this array does not use voxfetch.ZarrPipeline")
    try:
        doubts = pipeline.state.handles.doubts
    except UnsupportedError as error:
        doubts = (f"never accelerated: {error.message}",)
    return pipeline.state.counts.report(doubts)
