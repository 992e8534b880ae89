"""Trains a small network on random crops of an image and its labels, read ahead while it computes."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

import voxfetch as vf
from voxfetch.torch import CropDataset, CropLoader

SOURCE = Path(__file__).parents[1] / "tests" / "data" / "fib25" / "fib25.ome.zarr"


def membranes(item: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """One sample: grey values in 0 .. 1, and where a voxel and the next one along x belong to different cells."""
    cells = item["labels"]
    border = (cells != cells.roll(-1, dims=2)).to(torch.float32)
    return item["image"][None] / 255, border[None]


def main(source: str) -> None:
    """Two short epochs."""
    torch.manual_seed(0)
    # Decoded chunks are kept for the crops after this one.
    engine = vf.Engine(chunk_cache_bytes=256 << 20)
    image, labels = vf.open_image(source, engine=engine), vf.open_image(f"{source}/labels/groundtruth", engine=engine)
    arrays = {"image": image.level(0), "labels": labels.level(0)}
    crops = CropDataset.random(
        arrays, 24, 64, dtype={"image": torch.float32, "labels": torch.int64}, transform=membranes
    )
    network = torch.nn.Sequential(torch.nn.Conv3d(1, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv3d(4, 1, 1))
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    loader = CropLoader(crops, 8, shuffle="blocks", seed=1)
    for epoch in range(2):
        for voxels, border in loader:
            loss = torch.nn.functional.binary_cross_entropy_with_logits(network(voxels), border)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch}: loss {loss.item():.3f}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else str(SOURCE))
