"""Batches of small pictures for training: drawn at random, shifted and mirrored where asked for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.training.data import LeftOut, pictures_mark
from models.training.small_pictures import SmallPictures

#: ways of varying a picture, by name
AUGMENTATIONS = ("mirror", "shift")
#: most pictures that a validation looks at, and those of one batch of them
HELD_OUT, HELD_OUT_BATCH = 2048, 256


@dataclass(frozen=True)
class SmallTrainingSet:
    """Pictures to train on and pictures held out of it; `augment` names some of AUGMENTATIONS.

    `left_out` are pictures that were found and are not used, each with the reason.
    """

    train: SmallPictures
    held_out: SmallPictures
    augment: tuple[str, ...] = ()
    left_out: tuple[LeftOut, ...] = ()

    @property
    def listed(self) -> int:
        """Number of pictures that were found, those left out included."""
        return len(self.train) + len(self.held_out) + len(self.left_out)

    @property
    def mark(self) -> str:
        """The `pictures_mark` of all that is trained on or held out; empty where digests are not known."""
        parts = (self.train, self.held_out)
        if not all(part.digests for part in parts):
            return ""
        return pictures_mark(pair for part in parts for pair in zip(part.names, part.digests, strict=True))

    def draw(self, count: int, crop: int, generator: np.random.Generator) -> Tensor:
        """Draw whole pictures with replacement: count x C x H x W uint8; `crop` does not matter."""
        rows = torch.from_numpy(generator.integers(len(self.train), size=count))
        drawn = self.train.pictures[rows]
        if "mirror" in self.augment:
            chosen = torch.from_numpy(generator.random(count) < 0.5)
            drawn = torch.where(chosen[:, None, None, None], drawn.flip(3), drawn)
        if "shift" in self.augment:
            drawn = _shifted(drawn, generator)
        return drawn

    def held_out_batches(self, crop: int) -> list[Tensor]:
        """Return the first 2048 pictures held out, at most, in batches N x C x H x W uint8."""
        return _batches(self.held_out.pictures[:HELD_OUT])

    def training_batches(self, crop: int) -> list[Tensor]:
        """Return as many pictures trained on as are held out, spread over all of them, in batches of uint8."""
        count = min(len(self.train), len(self.held_out), HELD_OUT)
        rows = torch.linspace(0, len(self.train) - 1, count).long()
        return _batches(self.train.pictures[rows])


def _batches(pictures: Tensor) -> list[Tensor]:
    """Split pictures into batches of like size, none of a single one, which contrast could compare with nothing."""
    return list(pictures.tensor_split(-(-len(pictures) // HELD_OUT_BATCH)))


def _shifted(pictures: Tensor, generator: np.random.Generator) -> Tensor:
    """Move every picture by up to an eighth of its sides; its edges are repeated."""
    count, _, height, width = pictures.shape
    rows, columns = (
        (
            torch.arange(side)[None]
            + torch.from_numpy(generator.integers(-(side // 8), side // 8 + 1, size=(count, 1)))
        ).clamp(0, side - 1)
        for side in (height, width)
    )
    return pictures[torch.arange(count)[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
