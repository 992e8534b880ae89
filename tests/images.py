"""OME-Zarr images that zarr-python writes, and what planes say of them."""

from __future__ import annotations

import zarr

import voxfetch as vf


def make_image(
    path, levels, axes="zyx", scales=None, *, units=None, translations=None, labels=None, version="0.5", **ome
):
    """An OME-Zarr image, 0.5 by zarr-python; `levels` are arrays, `labels` images of the same form."""
    types = {"t": "time", "c": "channel"}
    described = [{"name": name, "type": types.get(name, "space")} for name in axes]
    for axis, unit in zip(described, units or [None] * len(axes), strict=True):
        if unit:
            axis["unit"] = unit
    datasets = []
    for number in range(len(levels)):
        scale = scales[number] if scales else [2.0**number if name in "zyx" else 1.0 for name in axes]
        transforms = [{"type": "scale", "scale": list(map(float, scale))}]
        if translations:
            transforms.append({"type": "translation", "translation": list(map(float, translations[number]))})
        datasets.append({"path": f"s{number}", "coordinateTransformations": transforms})
    members = {"version": version, "multiscales": [{"axes": described, "datasets": datasets}], **ome}
    group = zarr.open_group(path, mode="w", attributes={"ome": members})
    for number, voxels in enumerate(levels):
        chunks = tuple(min(extent, 8) for extent in voxels.shape)
        group.create_array(f"s{number}", data=voxels, chunks=chunks, dimension_names=list(axes))
    if labels:
        zarr.open_group(f"{path}/labels", mode="w", attributes={"ome": {"version": "0.5", "labels": list(labels)}})
        for name, voxels in labels.items():
            make_image(f"{path}/labels/{name}", voxels, axes, scales, units=units, **{"image-label": {}})
    return vf.open(path)


def shown(planes, path):
    """The members of OME-Zarr at `z3/...` or `z2/...`."""
    return (
        planes.json(f"{path}/zarr.json")["attributes"]["ome"]
        if path.startswith("z3")
        else planes.json(f"{path}/.zattrs")
    )


def paths(ome):
    return [dataset["path"] for dataset in ome["multiscales"][0]["datasets"]]
