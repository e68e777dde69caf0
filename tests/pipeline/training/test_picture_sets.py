"""CIFAR-10 as torchvision keeps it: read when its hashes are right, refused when they are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.errors import DataError
from pipeline.training.picture_sets import read_picture_set
from tests.small_sets import write_cifar, write_mnist


@pytest.fixture
def cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four pictures a batch under hashes that torchvision takes for the right ones; the real set is 170 MB."""
    # takes seconds, in every process that only collects
    from torchvision import datasets

    hashes = write_cifar(tmp_path / "cifar")
    lists = {"train_list": datasets.CIFAR10.train_list, "test_list": datasets.CIFAR10.test_list}
    for name, files in lists.items():
        monkeypatch.setattr(datasets.CIFAR10, name, [[file, hashes[file]] for file, _ in files])
    monkeypatch.setattr(datasets.CIFAR10, "meta", datasets.CIFAR10.meta | {"md5": hashes["batches.meta"]})
    return tmp_path / "cifar"


@pytest.mark.parametrize("below", ["", "cifar-10-batches-py"])
def test_torchvisions_batches_are_read(cifar: Path, below: str) -> None:
    """Whether the folder is given or the one above it."""
    train = read_picture_set((str(cifar / below),), (3, 32, 32), train=True)
    assert train.labels is not None
    assert train.labels.tolist() == [number for number in range(1, 6) for _ in range(4)]
    assert train.pictures[:, 0, 5, 5].tolist() == train.labels.tolist()
    assert (train.classes[3], train.names[4]) == ("class 3", "train/00004")
    assert len(read_picture_set((str(cifar),), (1, 16, 16), train=False)) == 4
    assert len(read_picture_set((str(cifar),), (3, 32, 32), limit=7)) == 7


def test_batches_with_other_bytes_are_refused_before_they_are_read(tmp_path: Path) -> None:
    write_cifar(tmp_path)
    with pytest.raises(DataError, match="does not hold the whole of CIFAR10"):
        read_picture_set((str(tmp_path),), (3, 32, 32))


def test_sets_of_several_kinds_are_one(cifar: Path, tmp_path: Path) -> None:
    both = read_picture_set((str(cifar), str(write_mnist(tmp_path / "mnist"))), (3, 32, 32), train=True)
    assert len(both) == 80
    assert both.labels is not None
    assert len(both.classes) == 20
