"""OME-Zarr documents: JSON in, checked values out. Pure; knows no store and no array."""

from voxfetch.ngff.documents import (
    READABLE_VERSIONS,
    bioformats2raw_layout,
    checked_path,
    is_image,
    ome_attributes,
    parse_image,
    parse_label_names,
    parse_series,
)
from voxfetch.ngff.model import Axis, Channel, Dataset, Multiscale, Window

__all__ = [
    "READABLE_VERSIONS",
    "Axis",
    "Channel",
    "Dataset",
    "Multiscale",
    "Window",
    "bioformats2raw_layout",
    "checked_path",
    "is_image",
    "ome_attributes",
    "parse_image",
    "parse_label_names",
    "parse_series",
]
