"""Restoration networks as ONNX files that need nothing beside them: any size and number of pictures, card included."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import torch

from models.cards import Card
from models.errors import ModelError
from models.files import PLAIN, Files
from models.registry import Model, load_model
from models.restoration.light import SAMPLE, sample
from models.restoration.network import RestorationNetwork

if TYPE_CHECKING:
    import onnx

#: version of ONNX's operators: the first whose Resize and DepthToSpace are all that the networks need is 18
_OPERATORS = 20
#: names of the inputs, the second only where the network has a condition, and of the output
PICTURE, CONDITION, RESTORED = "picture", "condition", "restored"


def export_model(name_or_url: str, url: str, files: Files = PLAIN) -> tuple[Card, int]:
    """Write a restoration model, a shipped one by name or any by URL, to `url`; return its card and its size in bytes.

    Raises ModelError when there is no such model, it is not a restoration network, the URL does not end in .onnx or
    what ONNX needs is not installed; OSError when it cannot be written.
    """
    if not url.endswith(".onnx"):
        raise ModelError(f"{url} does not end in .onnx; give the file that the network shall be written to")
    model = load_model(name_or_url, files=files)
    data = onnx_bytes(model)
    files.write(url, data)
    return model.card, len(data)


def onnx_bytes(model: Model) -> bytes:
    """Return the bytes of a restoration model as an ONNX file.

    Inputs are `picture`, N x 3 x H x W float32 in 0..1, and, where the network has one, `condition`, float32, N x 1 x H
    x W, or N x 3 x 64 x 64 where it is a sample of the picture; the output is `restored`, N x 3 x sH x sW, not clipped.
    Metadata: `card` (JSON), and what one must know to run it in tiles: `scale`, `condition`, `reach` and `multiple`.
    Raises ModelError as `export_model` does.
    """
    network = model.network
    if not isinstance(network, RestorationNetwork):
        raise ModelError(f"{model.card.name} is a {model.card.task}; only restoration networks can become ONNX files")
    try:
        import onnx
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ModelError("ONNX files need more packages: pip install onnx onnxscript") from error
    file = _traced(network)
    _leave_out_origins(file)
    _name_sides(file, network)
    facts = {
        "card": json.dumps(asdict(model.card)),
        "scale": str(network.scale),
        "condition": network.condition or "",
        "reach": str(network.reach),
        "multiple": str(network.multiple),
    }
    onnx.helper.set_model_props(file, facts)
    onnx.checker.check_model(file)
    return file.SerializeToString()


def _traced(network: RestorationNetwork) -> onnx.ModelProto:
    # sizes that are neither 0 nor 1 nor equal, which the exporter would take for constants
    picture = torch.zeros(2, 3, 40, 56)
    inputs = {PICTURE: picture}
    if network.condition:
        inputs[CONDITION] = sample(picture) if network.condition == "sample" else torch.zeros(2, 1, 40, 56)
    free = torch.export.Dim.DYNAMIC
    # a sample's sides are always the same
    freedom = [
        {0: free} if tuple(t.shape[2:]) == (SAMPLE, SAMPLE) else {0: free, 2: free, 3: free} for t in inputs.values()
    ]
    program = torch.onnx.export(
        network,
        tuple(inputs.values()),
        dynamo=True,
        dynamic_shapes=tuple(freedom),
        input_names=list(inputs),
        output_names=[RESTORED],
        opset_version=_OPERATORS,
        external_data=False,
        verbose=False,
    )
    assert program is not None
    return program.model_proto


def _leave_out_origins(file: onnx.ModelProto) -> None:
    """Remove the exporter's notes of where in our source, on this machine, every operator came from."""
    for part in (file.graph, *file.graph.node, *file.graph.value_info, *file.graph.input, *file.graph.output):
        del part.metadata_props[:]
        part.doc_string = ""
    # shapes in between are told in terms of the exporter's own names
    del file.graph.value_info[:]


def _name_sides(file: onnx.ModelProto, network: RestorationNetwork) -> None:
    larger = f"{network.scale} * " if network.scale > 1 else ""
    for values, sides in ((file.graph.input, ("H", "W")), (file.graph.output, (f"{larger}H", f"{larger}W"))):
        for value in values:
            count, _, height, width = value.type.tensor_type.shape.dim
            count.dim_param = "N"
            if height.dim_value != SAMPLE:
                height.dim_param, width.dim_param = sides
