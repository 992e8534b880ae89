"""voxfetch: reads sub-volumes of very large chunked n-D images, as fast as the medium allows.

    import voxfetch as vf
    image = vf.open("PATH")
    block = image.level(0)[10:20, 0:64, 0:64]

Only the names in `__all__` are public. `Image` and its relatives are loaded when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from voxfetch._core import __version__

# These are imported at once: were `voxfetch.open` loaded later, the import of that module would hide the function.
from voxfetch.array import Array, read_all, read_all_async
from voxfetch.create import create, create_async
from voxfetch.engine import Engine, default_engine
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
from voxfetch.open import open, open_array, open_array_async, open_async, open_image, open_image_async  # noqa: A004
from voxfetch.options import EngineStats, ReadOptions, ReadReport, RetryPolicy, StoreOptions, VerifyReport

if TYPE_CHECKING:
    from voxfetch.image import Collection, Group, Image, Level

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
    "__version__",
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

_OF_IMAGE = frozenset({"Collection", "Group", "Image", "Level"})


def __getattr__(name: str) -> Any:
    if name in _OF_IMAGE:
        from voxfetch import image

        value = getattr(image, name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
