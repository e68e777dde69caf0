"""Restoration networks under onnxruntime, in place of the torch modules that they were exported from.

An ONNX file from outside is a program. It is bounded in size and refused when it names other files, uses operators
that our networks do not consist of, or has parts that loop or call; while it runs, the memory it can have is bounded.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from models.cards import read_card
from models.device import Runtime
from models.errors import ModelError
from models.files import PLAIN, Files
from models.onnx.export import CONDITION, PICTURE, RESTORED, onnx_bytes
from models.registry import Loaded, Model, check_hash, fetch, load_model
from models.restoration.light import sample
from models.restoration.network import RestorationNetwork

if TYPE_CHECKING:
    import onnx
    import onnxruntime

#: most memory that all sessions of a process together may take for tensors
MEMORY_LIMIT = 4 << 30
_NAMES = (
    "Add AveragePool Cast Clip Concat Constant Conv ConvTranspose DepthToSpace Div Exp Gather GatherND Gemm Greater "
    "Identity Less LessOrEqual Mod Mul Pad Pow ReduceMax ReduceMean Relu Reshape Resize Shape Slice SpaceToDepth "
    "Squeeze Sub Tanh TopK Transpose Unsqueeze Where"
)
#: what exported networks consist of, and what exporters write in place of these
OPERATORS = frozenset(_NAMES.split())
_MOST_NODES = 10_000
_MOST_REACH = 4096
_LOADED, _EXPORTED = Loaded[Model](), Loaded[Model]()


def load_network(
    name_or_url: str, task: str, runtime: Runtime = "auto", files: Files = PLAIN, sha256: str | None = None
) -> Model:
    """Load a restoration model that runs under torch or onnxruntime; its network is called alike under both.

    A file that ends in .onnx runs under onnxruntime; any other model under torch, unless `runtime` is "onnx". `sha256`
    is the hash that the file must have; None: whatever lies there is taken. Raises ModelError when it cannot be loaded,
    is another file, or what ONNX needs is not installed.
    """
    if name_or_url.endswith(".onnx"):
        if runtime == "torch":
            raise ModelError(f"{name_or_url} runs under onnxruntime only; give the safetensors file, or runtime onnx")
        return _load(name_or_url, task, files, sha256)
    model = load_model(name_or_url, task, files, sha256)
    return _exported(model) if runtime == "onnx" else model


class OnnxNetwork(nn.Module):
    """A network of onnxruntime, called as RestorationNetwork is: N x 3 x H x W float in 0..1, and a condition.

    Tensors on a GPU are computed there where onnxruntime can, and come back to it. Threads are torch's.
    """

    def __init__(self, data: bytes, condition: str | None, scale: int, reach: int, multiple: int):
        super().__init__()
        self._data = data
        self._sessions: dict[str, onnxruntime.InferenceSession] = {}
        self.condition, self.scale, self.reach, self.multiple = condition, scale, reach, multiple

    def forward(self, picture: Tensor, condition: Tensor | None = None) -> Tensor:
        inputs = {PICTURE: picture}
        if self.condition:
            if condition is None:
                condition = sample(picture) if self.condition == "sample" else torch.zeros_like(picture[:, :1])
            inputs[CONDITION] = condition
        arrays = {name: tensor.float().cpu().contiguous().numpy() for name, tensor in inputs.items()}
        (restored,) = self._session(picture.device.type).run([RESTORED], arrays)
        return torch.from_numpy(restored).to(picture.device)

    def _session(self, device: str) -> onnxruntime.InferenceSession:
        if device not in self._sessions:
            self._sessions[device] = _open_session(self._data, device)
        return self._sessions[device]


def _open_session(data: bytes, device: str) -> onnxruntime.InferenceSession:
    import onnxruntime

    _bound_memory()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # what fails is told by the exception
    options.log_severity_level = 4
    # waiting threads leave the cores to those that decode and encode
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.use_env_allocators", "1")
    wanted = ["CUDAExecutionProvider"] if device == "cuda" else []
    providers = [name for name in wanted if name in onnxruntime.get_available_providers()]
    # folding constants takes memory that has no bound, and exporters have done it already
    return onnxruntime.InferenceSession(
        data, options, providers=[*providers, "CPUExecutionProvider"], disabled_optimizers=["ConstantFolding"]
    )


@lru_cache(maxsize=1)
def _bound_memory() -> None:
    import onnxruntime

    place = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    limits = onnxruntime.OrtArenaCfg({"max_mem": MEMORY_LIMIT, "arena_extend_strategy": 1})
    onnxruntime.create_and_register_allocator(place, limits)


def _load(url: str, task: str, files: Files, planned: str | None) -> Model:
    """Load an exported file as a model, whose tag has the hash of this file."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise ModelError(f"{url} needs more packages: pip install onnx onnxruntime") from error
    model = (_LOADED.get(url, planned) if planned else None) or _read(url, files, planned)
    if model.card.task != task:
        raise ModelError(f"the model at {url} is for {model.card.task!r}, not for {task!r}")
    return model


def _read(url: str, files: Files, planned: str | None) -> Model:
    data = fetch(url, files)
    found = hashlib.sha256(data).hexdigest()
    check_hash(url, found, planned)
    kept = _LOADED.get(url, found)
    if kept is not None:
        return kept
    facts = {entry.key: entry.value for entry in _examined(data, url).metadata_props}
    card = replace(read_card(facts.get("card", ""), url), sha256=found)
    return _LOADED.keep(Model(_network(data, facts, url), card), url, found)


def _examined(data: bytes, url: str) -> onnx.ModelProto:
    """Return the parsed file, if there is nothing in it that our networks do not need; else raise ModelError."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        file = onnx.load_model_from_string(data)
    except DecodeError as error:
        raise ModelError(f"{url} is not an ONNX file: {error}") from error
    graph = file.graph
    attributes = [attribute for node in graph.node for attribute in node.attribute]
    tensors = [*graph.initializer, *(attribute.t for attribute in attributes if attribute.HasField("t"))]
    foreign = {node.op_type for node in graph.node if node.domain not in ("", "ai.onnx")}
    foreign |= {node.op_type for node in graph.node} - OPERATORS
    if foreign:
        raise ModelError(f"{url} uses operators that no restoration network has: {', '.join(sorted(foreign))[:200]}")
    if any(tensor.external_data or tensor.data_location for tensor in tensors):
        raise ModelError(f"{url} keeps weights in other files, which is refused; export it into one file")
    calls = file.functions or any(attribute.HasField("g") or attribute.graphs for attribute in attributes)
    if calls or graph.sparse_initializer or any(attribute.tensors for attribute in attributes):
        raise ModelError(f"{url} has parts that no restoration network has; export it with `darkroom export`")
    if len(graph.node) > _MOST_NODES:
        raise ModelError(f"{url} has {len(graph.node):,} operators; more than {_MOST_NODES:,} are refused")
    return file


def _network(data: bytes, facts: dict[str, str], url: str) -> OnnxNetwork:
    """Build the network, after it has shown on a small picture that it is what its metadata say."""
    try:
        scale, reach, multiple = (int(facts[name]) for name in ("scale", "reach", "multiple"))
        condition = facts["condition"] or None
    except (KeyError, ValueError) as error:
        raise ModelError(f"{url} does not say how it is run; export it with `darkroom export`") from error
    if not (1 <= scale <= 8 and 1 <= multiple <= reach <= _MOST_REACH and reach % multiple == 0):
        raise ModelError(f"{url}: scale {scale}, reach {reach} and multiple {multiple} fit no restoration network")
    network = OnnxNetwork(data, condition, scale, reach, multiple)
    try:
        shape = network(torch.zeros(1, 3, 9, 11)).shape
    # onnxruntime's own exceptions have no common base but this
    except Exception as error:
        raise ModelError(f"{url} cannot be run: {str(error)[:500]}") from error
    if shape != (1, 3, 9 * scale, 11 * scale):
        raise ModelError(f"{url} makes {tuple(shape)} of (1, 3, 9, 11), which does not fit its scale {scale}")
    return network


def _exported(model: Model) -> Model:
    """Turn a torch model into one of onnxruntime's, by way of a file in memory."""
    kept = _EXPORTED.get(model.card.name, model.card.sha256)
    if kept is not None:
        return kept
    try:
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise ModelError("runtime onnx needs more packages: pip install onnx onnxruntime onnxscript") from error
    data = onnx_bytes(model)
    torch_network = cast(RestorationNetwork, model.network)
    network = OnnxNetwork(
        data, torch_network.condition, torch_network.scale, torch_network.reach, torch_network.multiple
    )
    return _EXPORTED.keep(replace(model, network=network), model.card.name, model.card.sha256)
