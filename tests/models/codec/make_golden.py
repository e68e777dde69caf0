"""Made `golden/version1*` once, when version 1 of the format was fixed. Not to be run again for that version.

python -m tests.models.codec.make_golden
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch
from skimage import data as photographs

from models.cards import Card
from models.codec.codec import Codec, Still, compress, decompress
from models.codec.frozen import freeze
from models.codec.network import CodecNetwork
from models.inference import apply_in_batches
from models.registry import load_model, save_model

FOLDER = Path(__file__).parent / "golden"
apply = partial(apply_in_batches, device="cpu", batch=1)


def small_network() -> CodecNetwork:
    """A small codec with numbers everywhere, as far from a trained one as may be; always the same."""
    torch.manual_seed(3)
    network = CodecNetwork(width=8, latents=20, down=1, up=1, hyper=6)
    with torch.no_grad():
        for name, parameter in network.prior.named_parameters():
            if name.endswith("bias") or name in ("first_quality", "join_step"):
                parameter.add_(torch.randn_like(parameter))
        network.hyper_analysis.layers[-1].weight.mul_(60)
    return network


def main() -> None:
    """A small model with numbers everywhere, and three streams of it with what they must give."""
    network = small_network()
    picture = np.ascontiguousarray(photographs.chelsea())
    frozen = freeze(network, [torch.from_numpy(picture[:288, :448]).permute(2, 0, 1).float().div(255)])
    sizes = {"width": 8, "latents": 20, "down": 1, "up": 1, "hyper": 6}
    facts = {"data": "none: random weights", "licence": "CC0", "hardware": "CPU", "training": "none", "command": "none"}
    card = Card("version1", "codec", "For the golden files", sizes, 0, steps=0, seconds=0, **facts)
    save_model(str(FOLDER / "version1.safetensors"), frozen, card)
    model = load_model(str(FOLDER / "version1.safetensors"), "codec")
    codec = Codec(model.network, "version1", bytes.fromhex(model.card.sha256[:32]))  # type: ignore[arg-type]
    alpha = (np.indices((61, 83)).sum(0) * 3 % 256).astype(np.uint8)
    stills = {
        "colour": (Still(picture[:150, :200].copy()), 500),
        "grey_alpha": (Still(picture[100:161, 50:133, :1].copy(), alpha, 16, b"profile", b"II*\0exif"), 1024),
        "one_pixel": (Still(picture[:1, :1].copy()), 16),
    }
    for name, (still, quality) in stills.items():
        data, latent = compress(codec, still, quality, apply)
        (FOLDER / f"version1_{name}.drk").write_bytes(data)
        given = decompress(codec, data, apply)
        alpha_given = np.zeros((0, 0), np.uint8) if given.alpha is None else given.alpha
        np.savez_compressed(
            FOLDER / f"version1_{name}.npz",
            symbols=latent.symbols,
            overflow=latent.overflow,
            hyper=latent.hyper,
            colour=given.colour,
            alpha=alpha_given,
        )


if __name__ == "__main__":
    main()
