"""A PyTorch dataset over a run: python examples/torch_dataset.py RUN BRANCH, of what `darkroom develop` wrote.

Pairs of developed picture and figures, for training on what Darkroom made, in a folder or a bucket; works with any
number of loader processes.
"""

import sys

if __name__ == "__main__" and len(sys.argv) != 3:
    print(__doc__.splitlines()[0], file=sys.stderr)
    sys.exit(2)

import numpy as np
import pyarrow.dataset as ds
import torch
from torch.utils.data import DataLoader, Dataset

import darkroom


class DevelopedPictures(Dataset[tuple[torch.Tensor, str]]):
    """The pictures of a branch as C x H x W float32 of 0..1, with their keys, in the order of the keys."""

    def __init__(self, run: str, branch: str) -> None:
        # a URL, not a connection: loader processes open their own
        self._run, self._branch = run, branch
        self._keys = sorted(scores(run, branch))

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, str]:
        key = self._keys[index]
        pixels = darkroom.open_destination(self._run).picture(self._branch, key).colour
        # 8 or 16 bits a sample
        levels = np.float32(np.iinfo(pixels.dtype).max)
        return torch.from_numpy(pixels / levels).permute(2, 0, 1), key


def scores(run: str, branch: str) -> dict[str, float]:
    """PSNR of every picture of a branch, by key; of a picture that several runs developed, the last one's."""
    table = darkroom.open_destination(run).table("metrics")
    rows = table.to_table(columns=["key", "psnr"], filter=ds.field("branch") == branch)
    return dict(zip(rows["key"].to_pylist(), rows["psnr"].to_pylist(), strict=True))


if __name__ == "__main__":
    found = scores(sys.argv[1], sys.argv[2])
    for pictures, keys in DataLoader(DevelopedPictures(sys.argv[1], sys.argv[2]), batch_size=1, num_workers=0):
        print(*pictures.shape[1:], keys[0], f"{found[keys[0]]:.2f}", sep="\t")
