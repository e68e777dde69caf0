"""Sets of small pictures in the files they come in: MNIST's idx, sheets of tiles, torchvision's CIFAR-10."""

from __future__ import annotations

import gzip
import hashlib
import json
import pickle
from pathlib import Path

import cv2
import numpy as np


def digits(count: int, seed: int = 0, side: int = 28) -> tuple[np.ndarray, np.ndarray]:
    """Generated digits, count x side x side uint8, somewhere in the middle and of any thickness, and their labels."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(10, size=count).astype(np.uint8)
    pictures = np.zeros((count, side, side), np.uint8)
    for picture, label in zip(pictures, labels, strict=True):
        corner = (int(generator.integers(side // 5, side // 3)), int(generator.integers(side * 3 // 4, side * 7 // 8)))
        thickness = int(generator.integers(1, 3))
        cv2.putText(picture, str(label), corner, cv2.FONT_HERSHEY_SIMPLEX, side / 34, 255, thickness, cv2.LINE_AA)
    return pictures, labels


def idx(values: np.ndarray) -> bytes:
    """An idx file of bytes."""
    sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
    return bytes((0, 0, 8, values.ndim)) + sizes + values.astype(np.uint8).tobytes()


def write_mnist(folder: Path, train: int = 60, test: int = 20, zipped: bool = True) -> Path:
    """MNIST's four files, with generated digits."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, count, seed in (("train", train, 1), ("t10k", test, 2)):
        pictures, labels = digits(count, seed)
        for kind, values in (("images-idx3", pictures), ("labels-idx1", labels)):
            name, data = f"{split}-{kind}-ubyte", idx(values)
            (folder / (name + ".gz" if zipped else name)).write_bytes(gzip.compress(data, 1) if zipped else data)
    return folder


def write_sheets(folder: Path, side: int = 8, columns: int = 4, count: int = 6) -> Path:
    """Two classes, two splits: tile n of label l is filled with 20 n + 3 l, in the test split with 1 more."""
    folder.mkdir(parents=True)
    sheets = {}
    for extra, split in enumerate(("train", "test")):
        for label, name in enumerate(("cat", "dog")):
            rows = -(-count // columns)
            tiles = np.zeros((rows * side, columns * side, 3), np.uint8)
            for number in range(count):
                top, left = number // columns * side, number % columns * side
                tiles[top : top + side, left : left + side] = 20 * number + 3 * label + extra
            cv2.imwrite(str(folder / f"{split}_{name}.png"), tiles)
            files = [f"{name}_{number}.png" for number in range(count)]
            sheets[f"{split}_{name}.png"] = {"split": split, "label": label, "count": count, "files": files}
    index = {"tile": side, "columns": columns, "classes": ["cat", "dog"], "sheets": sheets}
    (folder / "index.json").write_text(json.dumps(index))
    return folder


def write_cifar(folder: Path, count: int = 4) -> dict[str, str]:
    """CIFAR-10 as torchvision unpacks it, `count` pictures a batch, filled with its number; returns MD5s by names."""
    inside = folder / "cifar-10-batches-py"
    inside.mkdir(parents=True)
    names = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]
    for number, name in enumerate(names, 1):
        data = np.full((count, 3072), number, np.uint8)
        (inside / name).write_bytes(pickle.dumps({"data": data, "labels": [number] * count}))
    meta = {"label_names": [f"class {number}" for number in range(10)]}
    (inside / "batches.meta").write_bytes(pickle.dumps(meta))
    return {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in inside.iterdir()}
