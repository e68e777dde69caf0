"""Devices that are asked for: there, or an error that says what is missing."""

from __future__ import annotations

import pytest
import torch

from models.device import choose_device
from models.errors import DeviceError

without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")


def test_the_processor_is_always_there() -> None:
    """Asked for by name it is taken without a look at anything else."""
    assert choose_device("cpu") == "cpu"
    assert choose_device("auto") in ("cpu", "cuda")


@without_gpu
@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:3"])
def test_a_gpu_that_is_not_there_is_refused_by_name(device: str) -> None:
    """The message names what was asked for, what is missing and what to take instead."""
    with pytest.raises(DeviceError, match=f"--device {device}: .*here; take --device cpu, or auto"):
        choose_device(device)
    assert choose_device("auto") == "cpu"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_a_number_beyond_the_last_gpu_is_refused() -> None:
    """The message says which there are."""
    assert choose_device("cuda:0") == "cuda:0"
    with pytest.raises(DeviceError, match="no such GPU here; there is cuda:0"):
        choose_device(f"cuda:{torch.cuda.device_count()}")
