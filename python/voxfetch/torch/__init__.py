"""Crops for PyTorch: a dataset, a loader that reads ahead, and a sampler for workers of torch's own loader.

    from voxfetch.torch import CropDataset, CropLoader
    crops = CropDataset.random({"image": image.level(0), "labels": labels.level(0)}, (64, 64, 64), 10_000)
    for batch in CropLoader(crops, 16):
        batch["image"]  # a tensor (16, 64, 64, 64)

Needs torch.
"""

from __future__ import annotations

from voxfetch.torch.crops import CropDataset
from voxfetch.torch.loader import CropLoader
from voxfetch.torch.sampler import BlockSampler

__all__ = ["BlockSampler", "CropDataset", "CropLoader"]
