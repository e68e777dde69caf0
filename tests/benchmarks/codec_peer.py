"""The peer's side of `codec_speed`: run by a Python that has compressai, and only compressai's needs, installed.

Reads a picture's path a line from standard input, writes a line of JSON with seconds to standard output. Weights are
random (speed does not depend on them much); streams are real strings.
"""

import json
import sys
import time
import warnings

import numpy as np
import torch
from PIL import Image

warnings.simplefilter("ignore")
from compressai.zoo import bmshj2018_hyperprior, mbt2018_mean  # noqa: E402

torch.set_num_threads(int(sys.argv[1]))
torch.manual_seed(0)
networks = {}
for name, build in (("bmshj2018-hyperprior", bmshj2018_hyperprior), ("mbt2018-mean", mbt2018_mean)):
    networks[name] = build(quality=4, metric="mse", pretrained=False).eval()
    networks[name].update()
print("ready", flush=True)
for line in sys.stdin:
    pixels = torch.from_numpy(np.array(Image.open(line.strip()).convert("RGB"))).permute(2, 0, 1)[None].float() / 255
    found = {}
    for name, network in networks.items():
        with torch.no_grad():
            started = time.perf_counter()
            made = network.compress(pixels)
            encoded = time.perf_counter()
            network.decompress(made["strings"], made["shape"])
            found[name] = [encoded - started, time.perf_counter() - encoded]
    print(json.dumps(found), flush=True)
