"""One request for new pictures: what is drawn, interpolated and traversed, written as pictures, grids and a page.

Below the destination: `samples/00.png` … and `samples.png` with all of them; `interpolation/00.png` … and
`interpolation.png`; `traversal/<dimension>/00.png` …, `traversal.png` (a row a dimension, the strongest first) and
`traversal.parquet` with what every dimension does; `generation.json` and `generation.html`.
"""

from __future__ import annotations

import importlib.metadata
import json
from functools import partial
from importlib.util import find_spec

import numpy as np
import torch

from models.device import choose_device
from models.registry import load_model
from pipeline.destination.parquet import to_parquet
from pipeline.errors import RequestError
from pipeline.generation.interpolation import (
    MOST_NUMBERS,
    Spread,
    decode_all,
    encode_all,
    great_circle,
    levels,
    mixture_draws,
    spread_of,
    straight,
)
from pipeline.generation.page import render_generation
from pipeline.generation.results import Generation, Interpolation, Traversal, grid, square
from pipeline.generation.traversal import explain, moved
from pipeline.networks.encoders import OpenAutoencoder, model_input, open_autoencoder
from pipeline.pictures.encode import encode
from pipeline.pictures.picture import Metadata
from pipeline.requests.models import GenerateRequest
from pipeline.requests.stores import store_of
from pipeline.runs.single_file import read_picture
from pipeline.storage.files import StoredFiles
from pipeline.storage.store import Store, check_access, write
from pipeline.training.picture_sets import read_picture_set

#: samples drawn where a request says nothing
SAMPLES = 64
#: samples that travel through the network at once
_BATCH = 64


def generate(request: GenerateRequest) -> Generation:
    """Make the pictures that a request asks for, and write them.

    Raises ModelError, RequestError (a model without a prior and no source), PictureError (which names the picture),
    DataError (an unusable source), StorageError.
    """
    opened = open_autoencoder(request.model)
    device = choose_device(request.device)
    store = store_of(request)
    check_access(store, for_writing=True)
    _check(request, opened)
    network = opened.network.to(device)
    latents = _latents(request, opened, device)
    spread, of_spread = _spread(opened, latents)
    count = _sample_count(request)
    samples, prior = _samples(request, opened, latents, count, device) if count else (None, "")
    generation = Generation(
        card=load_model(request.model, "autoencoder", StoredFiles()).card,
        destination=store.url,
        page=store.url_of("generation.html"),
        prior=prior,
        spread=of_spread,
        samples=samples,
        interpolation=_interpolation(request, opened, device),
        traversal=_traversal(request, opened, spread, device),
        facts={
            "model": opened.model,
            "form": network.form,
            "shape": list(opened.shape),
            "latent_size": network.latent_size,
            "request": request.model_dump(mode="json", exclude={"source_storage", "destination_storage"}),
            "darkroom_version": importlib.metadata.version("darkroom"),
        },
    )
    _write(store, generation)
    return generation


def _check(request: GenerateRequest, opened: OpenAutoencoder) -> None:
    """Raise RequestError for what would find nothing to do, or not know where."""
    if not (_sample_count(request) or request.interpolate or request.traverse):
        raise RequestError("nothing is asked for; give --samples, --interpolate or --traverse")
    if (_sample_count(request) or request.traverse) and not opened.network.generative and not request.source:
        raise RequestError(
            f"{request.model} is a {opened.network.form} autoencoder, which has no prior: give --source, pictures that "
            "say where its latents lie"
        )
    if _sample_count(request) and not opened.network.generative and find_spec("sklearn") is None:
        raise RequestError(
            f"samples of a {opened.network.form} autoencoder need scikit-learn, which is not here: "
            "pip install scikit-learn, or take a variational or adversarial model"
        )


def _sample_count(request: GenerateRequest) -> int:
    if request.samples is not None:
        return request.samples
    return 0 if request.interpolate or request.traverse else SAMPLES


def _latents(request: GenerateRequest, opened: OpenAutoencoder, device: str) -> np.ndarray | None:
    """Encode the source's pictures, as many as `limit` and memory allow; None where no source is named."""
    if request.source is None:
        return None
    limit = max(2, min(request.limit, MOST_NUMBERS // opened.network.latent_size))
    found = read_picture_set((request.source,), opened.shape, limit=limit, files=StoredFiles(request.source_storage))
    if len(found) < 2:
        raise RequestError(f"there is but one picture below {request.source}; a spread takes two at least")
    return encode_all(opened.network, found.pictures, device)


def _spread(opened: OpenAutoencoder, latents: np.ndarray | None) -> tuple[Spread, str]:
    if latents is not None:
        return spread_of(latents), f"{len(latents):,} pictures of the source"
    size = opened.network.latent_size
    return Spread(np.zeros(size), np.ones(size)), "the prior, a standard normal distribution"


def _samples(
    request: GenerateRequest, opened: OpenAutoencoder, latents: np.ndarray | None, count: int, device: str
) -> tuple[np.ndarray, str]:
    """Draw pictures N x H x W x C uint8, and say what they were drawn from."""
    network = opened.network
    if not network.generative:
        assert latents is not None
        drawn, components = mixture_draws(latents, count, request.components, request.seed)
        spread = "one Gaussian" if components == 1 else f"a mixture of {components} Gaussians"
        told = f"{spread} fitted to the latents of {len(latents):,} pictures of the source"
        return decode_all(network, drawn, device), told
    generator = torch.Generator(device).manual_seed(request.seed)
    with torch.no_grad():
        parts = [
            levels(network.sample(min(_BATCH, count - start), generator)).cpu() for start in range(0, count, _BATCH)
        ]
    return torch.cat(parts).numpy(), "the model's own prior"


def _interpolation(request: GenerateRequest, opened: OpenAutoencoder, device: str) -> Interpolation | None:
    if request.interpolate is None:
        return None
    one, other = request.interpolate
    inputs = torch.stack([model_input(read_picture(url, request.source_storage), opened.shape) for url in (one, other)])
    ends = encode_all(opened.network, inputs, device)
    arc = request.way == "arc" or (request.way == "auto" and opened.network.generative)
    path = (great_circle if arc else straight)(ends[0], ends[1], request.steps)
    pictures = decode_all(opened.network, path, device)
    return Interpolation((one, other), "an arc" if arc else "a line", levels(inputs).numpy(), pictures)


def _traversal(request: GenerateRequest, opened: OpenAutoencoder, spread: Spread, device: str) -> Traversal | None:
    if request.traverse is None:
        return None
    inputs = model_input(read_picture(request.traverse, request.source_storage), opened.shape)[None]
    latent = encode_all(opened.network, inputs, device)[0]
    decode_latents = partial(decode_all, opened.network, device=device)
    rows = explain(decode_latents, latent, spread, request.reach)
    shown = [row["dimension"] for row in rows[: request.dimensions]]
    steps = tuple(np.linspace(-request.reach, request.reach, request.steps).tolist())
    pictures = decode_latents(moved(latent, spread, shown, steps))
    return Traversal(
        request.traverse,
        levels(inputs).numpy()[0],
        steps,
        pictures.reshape(len(shown), len(steps), *pictures.shape[1:]),
        rows,
    )


def _write(store: Store, generation: Generation) -> None:
    """Write everything, the page last: whoever finds the page finds all of it."""
    samples, between, through = generation.samples, generation.interpolation, generation.traversal
    if samples is not None:
        _write_pictures(store, "samples", samples)
        write(store, "samples.png", _png(grid(samples, square(len(samples)))))
    if between is not None:
        _write_pictures(store, "interpolation", between.pictures)
        write(store, "interpolation.png", _png(grid(between.pictures, len(between.pictures))))
    if through is not None:
        for row, pictures in zip(through.rows, through.pictures, strict=False):
            _write_pictures(store, f"traversal/{row['dimension']:04d}", pictures)
        flat = through.pictures.reshape(-1, *through.pictures.shape[2:])
        write(store, "traversal.png", _png(grid(flat, len(through.steps))))
        write(store, "traversal.parquet", to_parquet("traversal", through.rows))
    content = generation.facts | {"prior": generation.prior, "spread": generation.spread}
    write(store, "generation.json", (json.dumps(content, indent=2) + "\n").encode())
    write(store, "generation.html", render_generation(generation).encode())


def _write_pictures(store: Store, folder: str, pictures: np.ndarray) -> None:
    digits = max(2, len(str(len(pictures) - 1)))
    for number, picture in enumerate(pictures):
        write(store, f"{folder}/{number:0{digits}d}.png", _png(picture))


def _png(pixels: np.ndarray) -> bytes:
    return encode(pixels, Metadata("none", "rgb" if pixels.shape[2] == 3 else "grey", 8), "png").data
