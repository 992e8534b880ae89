"""voxfetch: reads sub-volumes of very large chunked n-D images, as fast as the medium allows.

    import voxfetch as vf
    image = vf.open("PATH")
    block = image.level(0)[10:20, 0:64, 0:64]

Only the names in `__all__` are public. All but the errors and `open` are loaded when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from voxfetch.errors import (
    ChecksumError,
    CodecError,
    ConflictError,
    CredentialsError,
    DataError,
    ForkSafetyError,
    InternalError,
    LimitExceededError,
    MetadataError,
    NotFoundError,
    ObjectChangedError,
    PermissionDeniedError,
    RangeNotHonouredError,
    ReadOnlyError,
    RetriesExhaustedError,
    SelectionError,
    ShardIndexError,
    StoreError,
    StoreTimeoutError,
    UnsupportedError,
    VoxfetchError,
)

# Not lazily: when the module `voxfetch.open` is first imported, it takes the place of the function in this package.
from voxfetch.open import open, open_array, open_array_async, open_async, open_image, open_image_async  # noqa: A004

if TYPE_CHECKING:
    from voxfetch._core import __version__
    from voxfetch.array import Array
    from voxfetch.creation import create, create_async
    from voxfetch.engine import Engine, default_engine
    from voxfetch.image import Collection, Group, Image
    from voxfetch.level import Level
    from voxfetch.options import EngineStats, ReadOptions, ReadReport, RetryPolicy, StoreOptions, VerifyReport
    from voxfetch.together import read_all, read_all_async
    from voxfetch.zarr import ZarrPipeline, accelerate

__all__ = [
    "Array",
    "ChecksumError",
    "CodecError",
    "Collection",
    "ConflictError",
    "CredentialsError",
    "DataError",
    "Engine",
    "EngineStats",
    "ForkSafetyError",
    "Group",
    "Image",
    "InternalError",
    "Level",
    "LimitExceededError",
    "MetadataError",
    "NotFoundError",
    "ObjectChangedError",
    "PermissionDeniedError",
    "RangeNotHonouredError",
    "ReadOnlyError",
    "ReadOptions",
    "ReadReport",
    "RetriesExhaustedError",
    "RetryPolicy",
    "SelectionError",
    "ShardIndexError",
    "StoreError",
    "StoreOptions",
    "StoreTimeoutError",
    "UnsupportedError",
    "VerifyReport",
    "VoxfetchError",
    "ZarrPipeline",
    "__version__",
    "accelerate",
    "create",
    "create_async",
    "default_engine",
    "open",
    "open_array",
    "open_array_async",
    "open_async",
    "open_image",
    "open_image_async",
    "read_all",
    "read_all_async",
]

_LAZY = {
    "_core": ("__version__",),
    "array": ("Array",),
    "creation": ("create", "create_async"),
    "engine": ("Engine", "default_engine"),
    "image": ("Collection", "Group", "Image"),
    "level": ("Level",),
    "options": ("EngineStats", "ReadOptions", "ReadReport", "RetryPolicy", "StoreOptions", "VerifyReport"),
    "together": ("read_all", "read_all_async"),
    "zarr": ("ZarrPipeline", "accelerate"),
}
_MODULE_OF = {name: module for module, names in _LAZY.items() for name in names}


def __getattr__(name: str) -> Any:
    module = _MODULE_OF.get(name)
    if module is None:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    import importlib

    value = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
