"""Networks over batches of pictures: running out of memory."""

from __future__ import annotations

import pytest
import torch

from models.inference import apply_in_batches


def test_running_out_of_memory_halves_the_batch() -> None:
    seen: list[int] = []

    class Tight(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(len(x))
            if len(x) > 2:
                raise torch.OutOfMemoryError("not so much at once")
            return x * 2

    pictures = [torch.full((3, 4, 4), float(n)) for n in range(7)]
    results = apply_in_batches(Tight(), pictures, "cpu", 8)
    assert [r[0, 0, 0].item() for r in results] == [0, 2, 4, 6, 8, 10, 12]
    assert seen[:3] == [7, 4, 2]


def test_one_picture_that_does_not_fit_is_an_error() -> None:
    class Full(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise torch.OutOfMemoryError("no")

    with pytest.raises(torch.OutOfMemoryError):
        apply_in_batches(Full(), [torch.zeros(3, 4, 4)], "cpu", 4)
