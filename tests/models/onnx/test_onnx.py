"""Restoration networks as ONNX files: equal to torch at any size, of any number; what is refused of foreign files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from models.cards import Card
from models.errors import ModelError
from models.onnx.export import export_model, onnx_bytes
from models.onnx.runtime import OPERATORS, OnnxNetwork, load_network
from models.registry import Model, load_model
from models.restoration.light import SAMPLE, sample
from models.restoration.network import RestorationNetwork
from models.restoration.tasks import RESTORATIONS
from tests.restoration_models import random_model

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

SIZES = ((1, 1, 1), (1, 7, 13), (3, 40, 64), (2, 65, 33), (1, 16, 16))

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def files(folder: Path) -> Callable[[str], tuple[str, str]]:
    """Task to the URLs of one network as safetensors and ONNX, written by the first test that asks."""

    def of(task: str) -> tuple[str, str]:
        # an export takes as long as a network is deep, and one of all of a network's scales is enough; as every export
        # takes seconds, tests to which the task is all the same share a few
        scales = 4 if task == "denoise" else 2
        url, target = random_model(folder, task, change=1.0, scales=scales), folder / f"{task}.onnx"
        if not target.exists():
            export_model(url, str(target))
        return url, str(target)

    return of


@pytest.mark.parametrize(
    "task",
    [
        task if task in ("denoise", "upscale-x4", "inpaint") else pytest.param(task, marks=pytest.mark.slow)
        for task in RESTORATIONS
    ],
)
def test_onnxruntime_equals_torch(task: str, files: Callable[[str], tuple[str, str]]) -> None:
    weights, exported = files(task)
    ours, theirs = load_model(weights, task).network, load_network(exported, task).network
    assert isinstance(theirs, OnnxNetwork)
    for name in ("scale", "reach", "multiple", "condition"):
        assert getattr(theirs, name) == getattr(ours, name)
    generator = torch.Generator().manual_seed(7)
    for count, height, width in SIZES:
        picture = torch.rand(count, 3, height, width, generator=generator)
        plane = torch.rand(count, 1, height, width, generator=generator)
        picked = torch.rand(count, 3, SAMPLE, SAMPLE, generator=generator)
        condition = {"mask": (plane < 0.3).float(), "level": plane, "sample": picked}.get(ours.condition)
        expected, got = ours(picture, condition), theirs(picture, condition)
        assert got.shape == expected.shape
        assert (expected * 255 - got * 255).abs().max() < 0.01
        difference = levels(expected) - levels(got)
        assert difference.abs().max() <= 1
        if task != "inpaint":
            assert (expected - torch.nn.functional.interpolate(picture, expected.shape[2:])).abs().max() > 0.02


def levels(picture: torch.Tensor) -> torch.Tensor:
    return (picture * 255).round().clamp(0, 255)


def test_a_condition_left_out_is_zeros(files: Callable[[str], tuple[str, str]]) -> None:
    network = load_network(files("denoise")[1], "denoise").network
    picture = torch.rand(2, 3, 20, 30)
    assert torch.equal(network(picture), network(picture, torch.zeros(2, 1, 20, 30)))


def test_a_sample_left_out_is_that_of_the_picture(files: Callable[[str], tuple[str, str]]) -> None:
    network = load_network(files("enhance")[1], "enhance").network
    picture = torch.rand(2, 3, 100, 90)
    assert torch.equal(network(picture), network(picture, sample(picture)))
    assert not torch.equal(network(picture), network(picture, sample(picture) / 2))


def test_any_order_of_memory(files: Callable[[str], tuple[str, str]]) -> None:
    network = load_network(files("denoise")[1], "denoise").network
    picture = torch.rand(1, 3, 24, 20)
    assert torch.equal(network(picture.contiguous(memory_format=torch.channels_last)), network(picture))


def test_a_file_says_what_it_is_and_nothing_of_this_machine(files: Callable[[str], tuple[str, str]]) -> None:
    weights, exported = files("upscale-x4")
    data = Path(exported).read_bytes()
    file = onnx.load_model_from_string(data)
    facts = {entry.key: entry.value for entry in file.metadata_props}
    assert facts["scale"] == "4"
    assert facts["condition"] == ""
    model = load_model(weights, "upscale-x4")
    assert model.card.sha256 in facts["card"]
    sides = [d.dim_param or d.dim_value for d in file.graph.output[0].type.tensor_type.shape.dim]
    assert sides == ["N", 3, "4 * H", "4 * W"]
    assert {node.op_type for node in file.graph.node} <= OPERATORS
    assert b".py" not in data
    assert str(Path.cwd()).encode() not in data


def test_an_exported_file_is_a_model_of_its_own(files: Callable[[str], tuple[str, str]]) -> None:
    weights, exported = files("upscale-x4")
    torch_model, model = load_model(weights, "upscale-x4"), load_network(exported, "upscale-x4")
    assert model.card.name == torch_model.card.name
    assert model.tag != torch_model.tag
    assert load_network(exported, "upscale-x4", "onnx").tag == model.tag


def test_the_runtime_is_chosen(files: Callable[[str], tuple[str, str]]) -> None:
    weights, exported = files("upscale-x4")
    picture = torch.rand(1, 3, 17, 21)
    plain = load_network(weights, "upscale-x4")
    assert isinstance(plain.network, RestorationNetwork)
    assert isinstance(load_network(weights, "upscale-x4", "torch").network, RestorationNetwork)
    made = load_network(weights, "upscale-x4", "onnx")
    assert isinstance(made.network, OnnxNetwork)
    # the same weights, whoever computes
    assert made.tag == plain.tag
    assert (made.network(picture) - plain.network(picture)).abs().max() * 255 < 0.01
    with pytest.raises(ModelError, match="onnxruntime only"):
        load_network(exported, "upscale-x4", "torch")


def test_what_cannot_be_exported_is_told(folder: Path) -> None:
    with pytest.raises(ModelError, match="only restoration networks"):
        export_model("codec-small", str(folder / "codec.onnx"))
    assert not (folder / "codec.onnx").exists()
    with pytest.raises(ModelError, match=r"does not end in \.onnx"):
        export_model("codec-small", str(folder / "codec"))
    with pytest.raises(ModelError, match="no model called"):
        export_model("nothing-such", str(folder / "nothing.onnx"))


def test_another_task_is_refused(files: Callable[[str], tuple[str, str]]) -> None:
    with pytest.raises(ModelError, match="'upscale-x4', not for 'deblock'"):
        load_network(files("upscale-x4")[1], "deblock")


def test_a_file_that_is_missing_or_torn_is_told(files: Callable[[str], tuple[str, str]], folder: Path) -> None:
    with pytest.raises(ModelError, match="no model at"):
        load_network(str(folder / "none.onnx"), "upscale-x4")
    data = Path(files("upscale-x4")[1]).read_bytes()
    for length in (0, 1, 100, len(data) // 2, len(data) - 1):
        (folder / "torn.onnx").write_bytes(data[:length])
        with pytest.raises(ModelError, match=r"torn\.onnx"):
            load_network(str(folder / "torn.onnx"), "upscale-x4")


def spoil_operator(file: onnx.ModelProto) -> str:
    file.graph.node[0].op_type = "If"
    return "operators that no restoration network has: If"


def spoil_domain(file: onnx.ModelProto) -> str:
    file.graph.node[0].domain = "com.example"
    return "operators that no restoration network has"


def spoil_weights(file: onnx.ModelProto) -> str:
    tensor = next(t for t in file.graph.initializer if len(t.dims) == 4)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    return "weights in other files"


def spoil_constant(file: onnx.ModelProto) -> str:
    node = file.graph.node.add(op_type="Constant", output=["extra"])
    attribute = node.attribute.add(name="value", type=onnx.AttributeProto.TENSOR)
    attribute.t.external_data.add(key="location", value="weights.bin")
    return "weights in other files"


def spoil_branch(file: onnx.ModelProto) -> str:
    attribute = file.graph.node[0].attribute.add(name="then", type=onnx.AttributeProto.GRAPH)
    attribute.g.name = "inner"
    return "parts that no restoration network has"


def spoil_function(file: onnx.ModelProto) -> str:
    file.functions.add(name="Relu", domain="com.example")
    return "parts that no restoration network has"


def spoil_card(file: onnx.ModelProto) -> str:
    next(entry for entry in file.metadata_props if entry.key == "card").value = "{}"
    return "not readable"


def spoil_facts(file: onnx.ModelProto) -> str:
    next(entry for entry in file.metadata_props if entry.key == "reach").value = str(10**12)
    return "fit no restoration network"


def spoil_scale(file: onnx.ModelProto) -> str:
    next(entry for entry in file.metadata_props if entry.key == "scale").value = "2"
    return "does not fit its scale 2"


def spoil_wiring(file: onnx.ModelProto) -> str:
    file.graph.node[3].input[0] = "nowhere"
    return "cannot be run"


def swell(file: onnx.ModelProto) -> str:
    """Enlarge again and again: more memory than any machine has, from a file of a few kilobytes."""
    return _resized(file, file.graph.input[0].name)


def swell_a_constant(file: onnx.ModelProto) -> str:
    constant = np.zeros((1, 3, 8, 8), np.float32)
    file.graph.initializer.append(onnx.numpy_helper.from_array(constant, "seed"))
    return _resized(file, "seed")


def _resized(file: onnx.ModelProto, last: str) -> str:
    scales = onnx.numpy_helper.from_array(np.array([1, 1, 8, 8], np.float32), "eight")
    file.graph.initializer.append(scales)
    del file.graph.node[:]
    for number in range(8):
        file.graph.node.append(onnx.helper.make_node("Resize", [last, "", "eight"], [f"larger{number}"]))
        last = f"larger{number}"
    file.graph.node.append(onnx.helper.make_node("Identity", [last], [file.graph.output[0].name]))
    return "cannot be run"


@pytest.mark.parametrize(
    "spoil",
    [
        spoil_operator,
        spoil_domain,
        spoil_weights,
        spoil_constant,
        spoil_branch,
        spoil_function,
        spoil_card,
        spoil_facts,
        spoil_scale,
        spoil_wiring,
        swell,
        swell_a_constant,
    ],
)
def test_a_hostile_file_is_refused(
    spoil: Callable[[onnx.ModelProto], str], files: Callable[[str], tuple[str, str]], folder: Path
) -> None:
    file = onnx.load_model_from_string(Path(files("upscale-x4")[1]).read_bytes())
    message = spoil(file)
    (folder / "hostile.onnx").write_bytes(file.SerializeToString())
    with pytest.raises(ModelError, match=message):
        load_network(str(folder / "hostile.onnx"), "upscale-x4")


def test_a_network_that_was_never_saved_can_be_exported(files: Callable[[str], tuple[str, str]]) -> None:
    """Its card is not in any file; but for the card, another export has the same bytes."""
    weights, exported = files("upscale-x4")
    card = Card("fresh", "upscale-x4", "for tests", {}, 0, "none", "none", 0, 0.0, "none", "none")
    fresh = onnx.load_model_from_string(onnx_bytes(Model(load_model(weights, "upscale-x4").network, card)))
    saved = onnx.load_model_from_string(Path(exported).read_bytes())
    cards = [next(entry for entry in file.metadata_props if entry.key == "card") for file in (fresh, saved)]
    assert '"fresh"' in cards[0].value
    cards[0].value = cards[1].value
    assert fresh.SerializeToString() == saved.SerializeToString()
