"""Sets of small pictures, also those that torchvision keeps in files of its own."""

from __future__ import annotations

from pathlib import Path

import torch

from models.errors import DataError
from models.files import Files
from models.training.small_pictures import (
    Progress,
    SmallPictures,
    check_memory,
    chosen,
    joined,
    read_small_pictures,
    stacked,
)
from pipeline.storage.files import StoredFiles
from pipeline.training.decoder import DECODER

#: folders that torchvision's CIFAR sets unpack to
CIFAR = {"cifar-10-batches-py": "CIFAR10", "cifar-100-python": "CIFAR100"}


def read_picture_set(
    urls: tuple[str, ...],
    shape: tuple[int, int, int],
    *,
    train: bool | None = None,
    limit: int | None = None,
    memory_limit: int = 8 << 30,
    files: Files | None = None,
    progress: Progress | None = None,
) -> SmallPictures:
    """Read what `read_small_pictures` reads, and local folders of CIFAR-10 or CIFAR-100 in Python's form.

    Pictures are decoded as `develop` does; CIFAR's come through torchvision, which checks their hashes before it reads
    them. Raises as `read_small_pictures` does, and StorageError.
    """
    read: list[SmallPictures] = []
    for url in urls:
        room = memory_limit - sum(part.pictures.numel() for part in read)
        kind = next((kind for kind in CIFAR if _folder(url, kind)), None)
        if kind:
            read.append(_read_cifar(url, kind, shape, train, limit, room))
        else:
            read.append(
                read_small_pictures(
                    url,
                    shape,
                    train=train,
                    limit=limit,
                    memory_limit=room,
                    files=files or StoredFiles(),
                    decoder=DECODER,
                    progress=progress,
                )
            )
    return joined(read)


def _folder(url: str, kind: str) -> Path | None:
    """Return the folder in which torchvision would look for the set's folder; None when it is not there."""
    if "://" in url:
        return None
    path = Path(url)
    root = path.parent if path.name == kind else path
    return root if (root / kind).is_dir() else None


def _read_cifar(
    url: str, kind: str, shape: tuple[int, int, int], train: bool | None, limit: int | None, memory: int
) -> SmallPictures:
    # takes a second to import
    from torchvision import datasets

    splits = {None: (True, False), True: (True,), False: (False,)}[train]
    root = _folder(url, kind)
    try:
        sets = [getattr(datasets, CIFAR[kind])(root, train=split, download=False) for split in splits]
    except RuntimeError as error:
        raise DataError(f"{url} does not hold the whole of {CIFAR[kind]}: {error}") from error
    names = [
        f"{'train' if split else 'test'}/{number:05d}"
        for split, part in zip(splits, sets, strict=True)
        for number in range(len(part.data))
    ]
    rows = chosen(names, limit)
    check_memory(len(rows), shape, memory)
    pixels = [picture for part in sets for picture in part.data]
    labels = torch.tensor([label for part in sets for label in part.targets])
    return SmallPictures(
        stacked((pixels[row] for row in rows), len(rows), shape),
        labels[rows],
        [names[row] for row in rows],
        list(sets[0].classes),
        # torchvision has compared every file with the digest it knows
        tuple(CIFAR[kind] for _ in rows),
    )
