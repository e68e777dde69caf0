"""One class at a time is held out of training as the anomaly: how well scores find it, beside isolation forests.

    python -m tests.benchmarks.anomaly_digits SOURCE --folder FOLDER [--minutes 1 | --steps 800] [--only 4 --only 9]
        [--out RESULTS.json]

SOURCE is MNIST's folder of idx files or CIFAR-10's. For every class a convolutional autoencoder is trained on the
training pictures of all others, and the scores are fitted on (at most `--fitted` of) these; the test split's pictures
of the class shall score higher than the rest. AUROC is the chance that one does. Scores: reconstruction error as it is
and over the picture's variance, distance of the latent from the five nearest ones, distance of the oddest patch from a
memory (PatchCore); and ways to make one of the last three, none of which is better than the best of them: mean and
highest rank, and the furthest from the median in median deviations. The isolation forest (Liu et al. 2008) sees 32
principal axes of the pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np

from models.training.small_pictures import SmallPictures, read_small_pictures
from pipeline.exploration.anomalies.memory import fit_memory, sample
from pipeline.exploration.anomalies.patches import Patches, patches_of
from pipeline.exploration.anomalies.scores import latent_distances, reconstruction_errors
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
    rebuilt,
    squared_errors,
    trained,
    write_results,
)

_STEPS = 800


@click.command()
@click.argument("source")
@budget_options(_STEPS)
@click.option("--only", multiple=True, help="only these classes, by name")
@click.option("--fitted", default=10_000, help="most training pictures that scores are fitted on")
@click.option("--out", type=click.Path(path_type=Path))
def main(
    source: str,
    folder: Path,
    steps: int | None,
    minutes: float | None,
    only: tuple[str, ...],
    fitted: int,
    out: Path | None,
) -> None:
    """Hold out each class of SOURCE in turn."""
    budget = budget_of(folder, steps, minutes, _STEPS)
    shape = _shape(source)
    train, test = (read_small_pictures(source, shape, train=split) for split in (True, False))
    rows = []
    for number, name in enumerate(train.classes):
        if only and name not in only:
            continue
        rows.append({"what": name} | _held_out(number, name, train, test, fitted, budget))
        print_rows("AUROC of a held-out class, %", [*rows, _mean(rows)])
        write_results(out, {"classes": rows, "mean": _mean(rows)})


def _shape(source: str) -> tuple[int, int, int]:
    """Grey digits or colour tiles, as the source's first picture is: that of MNIST has no colour."""
    pictures = read_small_pictures(source, (3, 32, 32), train=False, limit=50).pictures
    return (3, 32, 32) if (pictures[:, 0] != pictures[:, 1]).any() else (1, 28, 28)


def _held_out(number: int, name: str, train: SmallPictures, test: SmallPictures, fitted: int, budget: Budget) -> Row:
    assert train.labels is not None
    assert test.labels is not None
    usual = train.at((train.labels != number).nonzero().flatten().tolist())
    sizes = {"form": "convolutional", "shape": list(usual.pictures.shape[1:]), "widths": [32, 64], "latent": 32}
    network, facts = trained(f"without-{name}", Recipe(sizes), usual, budget)
    seen = usual.at(list(range(0, len(usual), max(1, -(-len(usual) // fitted)))))
    squared = squared_errors(test.pictures, rebuilt(network, test.pictures))
    parts = {"error / variance": reconstruction_errors(network, test.pictures.numpy())}
    parts["latent distance"] = latent_distances(latents_of(network, seen), latents_of(network, test))
    parts["oddest patch"] = _oddest_patches(seen, test)
    scores = {"squared error": squared} | parts | _combined(list(parts.values()))
    scores["isolation forest"] = _isolation(flat(seen), flat(test))
    odd = (test.labels == number).numpy()
    return {score: 100 * area(odd, values) for score, values in scores.items()} | facts


def _combined(parts: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Ways to make one score of several, each N: by ranks, and by median deviations from the median."""
    from scipy.stats import rankdata

    ranks = [rankdata(part) for part in parts]
    away = [(part - np.median(part)) / np.median(np.abs(part - np.median(part))) for part in parts]
    return {
        "mean rank": np.mean(ranks, axis=0),
        "highest rank": np.max(ranks, axis=0),
        "furthest": np.max(away, axis=0),
    }


def _oddest_patches(seen: SmallPictures, test: SmallPictures) -> np.ndarray:
    memory = fit_memory([sample(patches, len(seen)) for patches in _patches(seen)])
    return np.array([memory.distances(patches).max() for patches in _patches(test)])


def _patches(pictures: SmallPictures) -> Iterator[Patches]:
    for picture in pictures.pictures.numpy():
        yield patches_of(np.ascontiguousarray(picture.transpose(1, 2, 0)))


def area(odd: np.ndarray, scores: np.ndarray) -> float:
    """Area under the ROC curve, 0..1."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(odd, scores))


def _isolation(seen: np.ndarray, test: np.ndarray) -> np.ndarray:
    from sklearn.ensemble import IsolationForest

    one, other, _ = principal(seen, test, 32)
    return -IsolationForest(n_estimators=200, random_state=0).fit(one).score_samples(other)


def _mean(rows: list[Row]) -> Row:
    names = [name for name, value in rows[0].items() if isinstance(value, float) and name != "seconds"]
    return {"what": "mean"} | {name: float(np.mean([row[name] for row in rows])) for name in names}


if __name__ == "__main__":
    main()
