"""Autoencoders on CIFAR-10: what their latents keep beside JPEG and PCA at as many bytes, and what they say of classes.

    python -m tests.benchmarks.cifar_autoencoder CIFAR --folder FOLDER [--minutes 10 | --steps 6000] [--latent 128 …]
        [--model URL] [--out RESULTS.json]

CIFAR is a folder of CIFAR-10: sheets of tiles with their index.json, or torchvision's. Models are trained on its
training split, and measured on its test split.

*Bytes*: latents are kept as the latents table keeps them, 8 bits a number and 4 bytes for the step. JPEG gets the best
quality and subsampling that fit a picture into as many bytes; once the whole file is counted, and once, which is more
than fair to it, nothing but the entropy-coded data: neither headers nor tables.

*Classes*: a linear probe and nearest neighbours learn from the training split. A model of its own is trained for that,
with two views of every picture to be told apart from others (contrast); `--model` probes one that exists.
"""

from __future__ import annotations

import io
from pathlib import Path

import click
import numpy as np
from PIL import Image

from models.autoencoders import Autoencoder
from models.training.small_pictures import SmallPictures, read_small_pictures
from pipeline.generation.interpolation import decode_all
from pipeline.networks.encoders import open_autoencoder
from pipeline.networks.latents import vector_columns
from pipeline.pictures.picture import Picture
from tests.benchmarks.small_autoencoders import (
    Recipe,
    Row,
    budget_of,
    budget_options,
    flat,
    latents_of,
    principal,
    print_rows,
    probed,
    psnr,
    trained,
    write_grid,
    write_results,
)

SHAPE = (3, 32, 32)
_STEPS = 6000
_QUALITIES = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 18, 22, 26, 30, 35, 40, 45, 50, 55, 60, 65, 70, 75, 80, 85, 90, 95)
#: bytes of the step that a latent's numbers are counted in
_STEP_BYTES = 4


@click.command()
@click.argument("cifar")
@budget_options(_STEPS)
@click.option("--latent", "sizes", type=int, multiple=True, default=(64, 128, 384), help="numbers a latent")
@click.option("--model", help="URL or name of a trained model to be probed, too")
@click.option("--out", type=click.Path(path_type=Path))
def main(
    cifar: str,
    folder: Path,
    steps: int | None,
    minutes: float | None,
    sizes: tuple[int, ...],
    model: str | None,
    out: Path | None,
) -> None:
    """Train and measure on the CIFAR-10 below CIFAR."""
    budget = budget_of(folder, steps, minutes, _STEPS)
    train, test = (read_small_pictures(cifar, SHAPE, train=split) for split in (True, False))
    kept: list[Row] = []
    for size in sizes:
        network, facts = trained(f"cifar-{size}", keeping(size), train, budget)
        kept += [{"what": f"convolutional, {size}"} | _stored(network, test, budget.folder) | facts]
        kept += _others(train, test, size)
        print_rows("CIFAR-10 test split: what so many bytes keep", kept)
    network, facts = trained("cifar-contrast", saying(), train, budget)
    said = [{"what": "contrast, latents"} | _probed(latents_of(network, train), train, latents_of(network, test), test)]
    said[0] |= facts
    if model:
        said.append({"what": model} | _probed_model(model, cifar))
    pixels = flat(train), flat(test)
    said.append({"what": "pixels"} | _probed(pixels[0], train, pixels[1], test))
    for size in (network.latent_size, 64):
        one, other, _ = principal(*pixels, size)
        said.append({"what": f"PCA-{size}"} | _probed(one, train, other, test))
    print_rows("CIFAR-10: what latents say of classes", said)
    write_results(out, {"bytes": kept, "classes": said})


def keeping(latent: int) -> Recipe:
    """For latents that keep as much of a picture as they can."""
    sizes = {"form": "convolutional", "shape": list(SHAPE), "widths": [48, 96], "latent": latent}
    return Recipe(sizes, augment=("mirror", "shift"), learning_rate=0.02, batch=64)


def saying() -> Recipe:
    """For latents that say what is on a picture."""
    sizes = {"form": "convolutional", "shape": list(SHAPE), "widths": [48, 96, 192], "latent": 256, "projection": 64}
    return Recipe(sizes, "mse + 0.3*contrast", batch=256)


def _stored(network: Autoencoder, test: SmallPictures, folder: Path) -> Row:
    latents = latents_of(network, test)
    rows = [vector_columns(latent, Picture("k", np.zeros((32, 32, 3), np.uint8))) for latent in latents]
    rounded = np.stack([row["latent"] * np.float32(row["scale"][0]) for row in rows])
    made = decode_all(network, rounded, "cpu")
    truth = test.pictures.permute(0, 2, 3, 1).numpy()
    shown = np.concatenate([truth[:16], made[:16]]).transpose(0, 3, 1, 2) / 255
    write_grid(folder / f"cifar-{network.latent_size}.png", shown, 16)
    return {"bytes": float(network.latent_size + _STEP_BYTES), "PSNR, dB": psnr(_errors(made, truth))}


def _others(train: SmallPictures, test: SmallPictures, size: int) -> list[Row]:
    """PCA with as many numbers, and JPEG in as many bytes."""
    limit = size + _STEP_BYTES
    truth = test.pictures.permute(0, 2, 3, 1).numpy()
    *_, error = principal(flat(train), flat(test), min(size, len(train)))
    rows: list[Row] = [{"what": f"PCA, {size} (mean error as dB)", "PSNR, dB": float(-10 * np.log10(error))}]
    for what, whole in (("JPEG, data alone", False), ("JPEG, whole file", True)):
        found = [_jpeg(picture, limit, whole) for picture in truth]
        errors = _errors(np.stack([pixels for pixels, _ in found]), truth)
        rows.append({"what": what, "bytes": float(np.mean([count for _, count in found])), "PSNR, dB": psnr(errors)})
    return rows


def _jpeg(picture: np.ndarray, limit: int, whole: bool) -> tuple[np.ndarray, int]:
    """The JPEG of at most so many bytes that is nearest to a picture, and its bytes; where none is, the smallest."""
    best: tuple[float, np.ndarray, int] | None = None
    smallest: tuple[int, np.ndarray] | None = None
    for quality in _QUALITIES:
        fits = False
        for subsampling in (2, 0):
            file = io.BytesIO()
            Image.fromarray(picture).save(file, "JPEG", quality=quality, subsampling=subsampling, optimize=True)
            data = file.getvalue()
            count = len(data) if whole else _entropy_coded(data)
            pixels = np.array(Image.open(file))
            if smallest is None or count < smallest[0]:
                smallest = count, pixels
            if count <= limit:
                fits = True
                error = float(((pixels.astype(np.float32) - picture) ** 2).mean())
                best = min(best or (np.inf, pixels, 0), (error, pixels, count), key=lambda found: found[0])
        if not fits:
            break
    assert smallest is not None
    return (best[1], best[2]) if best else (smallest[1], smallest[0])


def _entropy_coded(data: bytes) -> int:
    """Bytes of a baseline JPEG between the head of its one scan and the end marker."""
    scan = data.index(b"\xff\xda") + 2
    return len(data) - scan - int.from_bytes(data[scan : scan + 2], "big") - 2


def _errors(made: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Mean squared errors, of 0..1, of N x H x W x C uint8."""
    return ((made.astype(np.float32) - truth) ** 2).mean((1, 2, 3)) / 255**2


def _probed(train: np.ndarray, of_train: SmallPictures, test: np.ndarray, of_test: SmallPictures) -> Row:
    assert of_train.labels is not None
    assert of_test.labels is not None
    return {"numbers": train.shape[1]} | probed(train, of_train.labels, test, of_test.labels)


def _probed_model(model: str, cifar: str) -> Row:
    """A model of any shape: pictures are read at its own."""
    opened = open_autoencoder(model)
    train, test = (read_small_pictures(cifar, opened.shape, train=split) for split in (True, False))
    return _probed(latents_of(opened.network, train), train, latents_of(opened.network, test), test)


if __name__ == "__main__":
    main()
