"""The autoencoder family on MNIST: reconstruction beside PCA, denoising, probes, clusters, the ELBO, samples.

    python -m tests.benchmarks.mnist_autoencoders MNIST --folder FOLDER [--minutes 5 | --steps 4000] [--only FORM …]
        [--no-probes] [--out RESULTS.json]

MNIST is the folder of the four idx files. Every model is trained on the 60,000 pictures of the training split (a
twentieth of them held out for early stopping) and measured on the 10,000 of the test split. A model whose checkpoint
lies in FOLDER is not trained again, an interrupted one is gone on with. Grids of samples and reconstructions go there.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import torch

from models.autoencoders import Autoencoder
from models.autoencoders.objective import parse_corruption
from models.autoencoders.variational import VariationalAutoencoder
from models.training.small_pictures import SmallPictures, read_small_pictures
from pipeline.exploration.clusters import agreement, kmeans
from tests.benchmarks.small_autoencoders import (
    Budget,
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
    rebuilt,
    squared_errors,
    trained,
    write_grid,
    write_results,
)

SHAPE = [1, 28, 28]
NOISE = "noise:0.5"
_STEPS = 4000

RECIPES = {
    "dense 784-64-32": Recipe({"form": "dense", "shape": SHAPE, "widths": [64, 32]}),
    "dense 784-512-256-32": Recipe({"form": "dense", "shape": SHAPE, "widths": [512, 256, 32]}),
    "dense 784-256": Recipe({"form": "dense", "shape": SHAPE, "widths": [256]}),
    "convolutional": Recipe(
        {"form": "convolutional", "shape": SHAPE, "widths": [32, 64], "latent": 256, "projection": 64},
        loss="mse + 0.1*contrast",
    ),
    "denoising": Recipe(
        {"form": "convolutional", "shape": SHAPE, "widths": [32, 64], "latent": None, "blocks": 1}, corrupt=NOISE
    ),
    "recurrent": Recipe({"form": "recurrent", "shape": SHAPE, "latent": 32}),
    "variational": Recipe({"form": "variational", "shape": SHAPE, "widths": [32, 64], "latent": 20}, loss="bce + kl"),
    "vector-quantised": Recipe({"form": "vector-quantised", "shape": SHAPE, "codes": 128, "channels": 8}),
    "adversarial": Recipe({"form": "adversarial", "shape": SHAPE, "latent": 32}),
}
#: latents that are probed and clustered, beside pixels and principal axes
_PROBED = ("dense 784-64-32", "convolutional", "denoising", "variational")


@click.command()
@click.argument("mnist")
@budget_options(_STEPS)
@click.option("--only", multiple=True, type=click.Choice(list(RECIPES)), help="only these models")
@click.option("--probes/--no-probes", "probing", default=True, help="what latents say of classes; takes minutes")
@click.option("--labelled", default=60_000, help="training pictures that probes learn from")
@click.option("--out", type=click.Path(path_type=Path))
def main(
    mnist: str,
    folder: Path,
    steps: int | None,
    minutes: float | None,
    only: tuple[str, ...],
    probing: bool,
    labelled: int,
    out: Path | None,
) -> None:
    """Train and measure on the idx files in MNIST."""
    budget = budget_of(folder, steps, minutes, _STEPS)
    train, test = (read_small_pictures(mnist, (1, 28, 28), train=split) for split in (True, False))
    few = train.at(list(range(min(labelled, len(train)))))
    baselines, probes = _baselines(train, few if probing else None, test)
    models: list[Row] = []
    for name in only or RECIPES:
        network, facts = trained(name.replace(" ", "-"), RECIPES[name], train, budget)
        models.append({"what": name, "latent": network.latent_size} | facts | _measured(name, network, test, budget))
        if probing and name in _PROBED:
            one, other = latents_of(network, few), latents_of(network, test)
            probes.append({"what": f"{name} latents"} | _agreement(one, few, other, test))
        print_rows("MNIST test split: reconstruction", [*baselines, *models])
        if probing:
            print_rows("linear probe, neighbours, and k-means of ten clusters", probes)
        write_results(out, {"models": [*baselines, *models], "latents": probes})


def _baselines(train: SmallPictures, few: SmallPictures | None, test: SmallPictures) -> tuple[list[Row], list[Row]]:
    """Rows of PCA's errors; and, where pictures are given to learn from, of what pixels and axes say of classes."""
    pixels, of_test = flat(train), flat(test)
    rows, probes = [], []
    if few is not None:
        probes.append({"what": "pixels"} | _agreement(pixels[: len(few)], few, of_test, test))
    for axes in (32, 256):
        one, other, error = principal(pixels, of_test, axes)
        rows.append({"what": f"PCA-{axes}", "latent": axes, "test MSE": error})
        if few is not None:
            probes.append({"what": f"PCA-{axes}"} | _agreement(one[: len(few)], few, other, test))
    return rows, probes


def _measured(name: str, network: Autoencoder, test: SmallPictures, budget: Budget) -> Row:
    """Of the test pictures; reconstructions, of spoiled ones for the denoiser, and samples as grids."""
    corruption = parse_corruption(NOISE) if name == "denoising" else None
    made = rebuilt(network, test.pictures, corruption)
    errors = squared_errors(test.pictures, made)
    row: Row = {"test MSE": float(errors.mean()), "PSNR, dB": psnr(errors)}
    shown = test.pictures[:16].float() / 255
    rows = [shown.numpy(), made[:16]]
    if corruption:
        generator = torch.Generator().manual_seed(25)
        spoiled = [corruption(part.float() / 255, generator) for part in test.pictures.split(256)]
        row["gain over the noise, dB"] = row["PSNR, dB"] - psnr(
            squared_errors(test.pictures, torch.cat(spoiled).numpy())
        )
        rows.insert(1, spoiled[0][:16].numpy())
    write_grid(budget.folder / f"{name.replace(' ', '-')}-reconstructions.png", np.concatenate(rows), 16)
    if isinstance(network, VariationalAutoencoder):
        generator = torch.Generator().manual_seed(25)
        with torch.inference_mode():
            bounds = [network.negative_bound(part.float() / 255, generator) for part in test.pictures.split(256)]
        row["ELBO, nats"] = -float(torch.cat(bounds).mean())
    if network.generative:
        with torch.inference_mode():
            samples = network.sample(100, torch.Generator().manual_seed(25)).numpy()
        write_grid(budget.folder / f"{name}-samples.png", samples, 10)
    return row


def _agreement(train: np.ndarray, of_train: SmallPictures, test: np.ndarray, of_test: SmallPictures) -> Row:
    assert of_train.labels is not None
    assert of_test.labels is not None
    mutual, accuracy = agreement(of_test.labels.numpy(), kmeans(test, 10).labels)
    row = probed(train, of_train.labels, test, of_test.labels)
    return row | {"k-means NMI": mutual, "k-means accuracy, %": 100 * accuracy}


if __name__ == "__main__":
    main()
