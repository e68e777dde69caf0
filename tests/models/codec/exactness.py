"""Encode and decode under many settings; `test_exactness.py` starts this in processes of its own.

python -m tests.models.codec.exactness FOLDER encode|decode|encode,decode NAME...: `encode` writes FOLDER/NAME.drk for
every setting named; `decode` decodes, under each of them, every stream in the folder, prints whether the symbols were
right and the CRC-32 of the latents, and writes the pixels.
"""

from __future__ import annotations

import json
import sys
import zlib
from itertools import product
from pathlib import Path

import numpy as np
import torch
from skimage import data as photographs
from torch import Tensor, nn

from models.codec import codec as codec_module
from models.codec.bitstream import unpack
from models.codec.codec import Codec, Still, compress, decompress
from models.codec.tile import decode_tile
from models.inference import apply_in_batches
from models.registry import load_model

#: name -> what differs from the defaults; environment variables are set by whoever starts the process
SETTINGS: dict[str, dict[str, object]] = {
    "one thread": {"threads": 1},
    "two threads": {"threads": 2},
    "seven threads": {"threads": 7},
    "no oneDNN": {"threads": 1, "mkldnn": False},
    "channels last": {"threads": 2, "channels_last": True},
    "batches of four": {"threads": 1, "batch": 4},
    "bfloat16 transforms": {"threads": 1, "dtype": "bfloat16"},
    "float64 transforms": {"threads": 1, "dtype": "float64"},
    "reduced matrix precision": {
        "threads": 1,
        "precision": "medium",
        "environment": {"ONEDNN_DEFAULT_FPMATH_MODE": "BF16"},
    },
    "no vector instructions": {
        "threads": 1,
        "environment": {
            "ATEN_CPU_CAPABILITY": "default",
            "ONEDNN_MAX_CPU_ISA": "SSE41",
            "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
        },
    },
    "small windows": {"threads": 1, "window": 64},
    "a GPU": {"threads": 1, "device": "cuda", "batch": 4},
}


def main(folder: Path, actions: list[str], names: list[str]) -> None:
    """All of one process's part of the test."""
    model = load_model("codec-small", "codec")
    codec = Codec(model.network, model.card.name, bytes.fromhex(model.card.sha256[:32]))  # type: ignore[arg-type]
    found: dict[str, dict[str, list[object]]] = {}
    for action, name in product(actions, names):
        setting = SETTINGS[name]
        torch.set_num_threads(int(str(setting["threads"])))
        torch.backends.mkldnn.enabled = bool(setting.get("mkldnn", True))  # type: ignore[assignment]
        torch.set_float32_matmul_precision(str(setting.get("precision", "highest")))
        codec_module.WINDOW = int(str(setting.get("window", 512)))
        if action == "encode":
            picture = np.ascontiguousarray(photographs.astronaut()[60:172, 130:274])
            data, _ = compress(codec, Still(picture), 16 * 30 + 5, _apply(setting))
            (folder / f"{name}.drk").write_bytes(data)
        else:
            found[name] = {path.stem: _decode(folder, codec, path, name) for path in sorted(folder.glob("*.drk"))}
    print(json.dumps(found))


def _decode(folder: Path, codec: Codec, path: Path, name: str) -> list[object]:
    data = path.read_bytes()
    stream = unpack(data)
    code = decode_tile(codec.network, stream.tiles[0].payload, stream.header.quality, 7, 9)
    pixels = decompress(codec, data, _apply(SETTINGS[name])).colour
    (folder / f"{path.stem} by {name}.npy").write_bytes(pixels.tobytes())
    return [code.crc32 == stream.tiles[0].crc32, zlib.crc32(code.values.tobytes())]


def _apply(setting: dict[str, object]):  # type: ignore[no-untyped-def]
    dtype = getattr(torch, str(setting.get("dtype", "float32")))
    device = str(setting.get("device", "cpu"))

    def apply(network: nn.Module, tensors: list[Tensor]) -> list[Tensor]:
        if setting.get("channels_last"):
            network = network.to(memory_format=torch.channels_last)
            tensors = [tensor[None].to(memory_format=torch.channels_last)[0] for tensor in tensors]
        if dtype != torch.float32:
            tensors = [tensor.to(dtype) for tensor in tensors]
            network = network.to(dtype)
        results = apply_in_batches(network, tensors, device, int(str(setting.get("batch", 1))))
        network.to("cpu", torch.float32)
        return [result.float() for result in results]

    return apply


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2].split(","), sys.argv[3:])
