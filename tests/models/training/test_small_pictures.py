"""Small pictures: what is read of which files, splits that hold, hostile files refused, batches repeated."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.errors import DataError
from models.training.data import share_of_name
from models.training.small_batches import HELD_OUT, HELD_OUT_BATCH, SmallTrainingSet
from models.training.small_pictures import TEST_SHARE, SmallPictures, read_small_pictures, resized, split_by_name
from tests.small_sets import digits, idx, write_mnist, write_sheets


@pytest.fixture(scope="module")
def mnist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mnist(tmp_path_factory.mktemp("mnist"))


def folder_of(path: Path, classes: tuple[str, ...] = ("cat", "dog"), count: int = 40) -> Path:
    for number in range(count):
        inside = path / classes[number % len(classes)]
        inside.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(inside / f"{number:03d}.png"), np.full((20, 30, 3), number, np.uint8))
    return path


@pytest.mark.parametrize("zipped", [True, False])
def test_idx_files_are_read_as_they_are(zipped: bool, tmp_path: Path) -> None:
    """Gzipped or not, in a folder below, as torchvision has them; each split is its own."""
    write_mnist(tmp_path / "MNIST" / "raw", zipped=zipped)
    train = read_small_pictures(str(tmp_path), (1, 28, 28), train=True)
    pictures, labels = digits(60, 1)
    assert np.array_equal(train.pictures[:, 0].numpy(), pictures)
    assert np.array_equal(train.labels, labels)
    assert (train.names[7], train.classes) == ("train/00007", [str(n) for n in range(10)])
    assert read_small_pictures(str(tmp_path), (1, 28, 28), train=False).names[-1] == "t10k/00019"
    assert len(read_small_pictures(str(tmp_path), (1, 28, 28))) == 80


def test_other_shapes_are_resized_and_grey_becomes_colour(mnist: Path) -> None:
    coloured = read_small_pictures(str(mnist), (3, 16, 12), train=False)
    assert coloured.pictures.shape == (20, 3, 16, 12)
    assert torch.equal(coloured.pictures[:, 0], coloured.pictures[:, 2])
    means = read_small_pictures(str(mnist), (1, 28, 28), train=False).pictures.float().mean((1, 2, 3))
    assert torch.allclose(coloured.pictures.float().mean((1, 2, 3)), means, atol=1)


def test_sheets_are_cut_into_their_tiles(tmp_path: Path) -> None:
    folder = write_sheets(tmp_path / "sheets")
    test = read_small_pictures(str(folder), (3, 8, 8), train=False)
    assert (test.classes, test.names[3]) == (["cat", "dog"], "test/cat/cat_3.png")
    assert test.labels is not None
    assert test.labels.tolist() == [0] * 6 + [1] * 6
    expected = [20 * number + 3 * label + 1 for label in range(2) for number in range(6)]
    assert test.pictures[:, 0, 4, 4].tolist() == expected
    assert len(read_small_pictures(str(folder), (3, 8, 8))) == 24


def test_a_folders_classes_are_its_first_folders(tmp_path: Path) -> None:
    found = read_small_pictures(str(folder_of(tmp_path)), (3, 10, 15))
    assert found.classes == ["cat", "dog"]
    assert found.labels is not None
    for name, label, picture in zip(found.names, found.labels, found.pictures, strict=True):
        assert name.startswith(found.classes[label])
        assert (picture == int(name[-7:-4])).all()
    (tmp_path / "outside.png").write_bytes((tmp_path / "cat" / "000.png").read_bytes())
    (tmp_path / "cat" / "broken.jpg").write_bytes(b"no")
    more = read_small_pictures(str(tmp_path), (3, 10, 15))
    assert (more.labels, more.classes, more.left_out) == (
        None,
        [],
        (("cat/broken.jpg", "unreadable: no picture that OpenCV reads"),),
    )


def test_every_picture_is_in_one_split_and_stays_there(tmp_path: Path) -> None:
    """Test, held out or trained on: no picture is in two, wherever the folder lies."""
    folder_of(tmp_path / "a", count=200)
    shutil.copytree(tmp_path / "a", tmp_path / "b" / "c")
    names = {}
    for root in (tmp_path / "a", tmp_path / "b" / "c"):
        test = read_small_pictures(str(root), (1, 4, 4), train=False)
        trained, held_out = split_by_name(read_small_pictures(str(root), (1, 4, 4), train=True), 0.1)
        parts = [set(part.names) for part in (test, trained, held_out)]
        assert sum(map(len, parts)) == len(set.union(*parts)) == 200
        assert all(parts)
        names[root] = parts
    assert len({str(sorted(map(sorted, parts))) for parts in names.values()}) == 1


def test_a_limit_takes_of_all_classes(tmp_path: Path, mnist: Path) -> None:
    found = read_small_pictures(str(folder_of(tmp_path)), (1, 4, 4), limit=20)
    assert len(found) == 20
    assert found.labels is not None
    assert found.labels.bincount().min() > 2
    assert read_small_pictures(str(mnist), (1, 28, 28), limit=20).names == sorted(
        read_small_pictures(str(mnist), (1, 28, 28), limit=20).names, key=lambda name: ("t10k" in name, name)
    )


def test_a_mark_tells_sets_apart(tmp_path: Path, mnist: Path) -> None:
    folder_of(tmp_path / "pets")
    sheets = write_sheets(tmp_path / "sheets")

    def mark(source: Path, limit: int | None = None) -> str:
        whole = read_small_pictures(str(source), (1, 8, 8), train=True, limit=limit)
        return SmallTrainingSet(*split_by_name(whole, 0.2)).mark

    marks = [mark(source) for source in (tmp_path / "pets", sheets, mnist)]
    assert marks == [mark(source) for source in (tmp_path / "pets", sheets, mnist)]
    limited = [mark(source, 9) for source in (tmp_path / "pets", sheets, mnist)]
    changed = sorted((tmp_path / "pets").rglob("*.png"))[3]
    changed.write_bytes(changed.with_name("000.png").read_bytes())
    assert len({*marks, *limited, mark(tmp_path / "pets")}) == 7


def test_several_sources_are_one_with_all_their_classes(tmp_path: Path, mnist: Path) -> None:
    folder_of(tmp_path / "pets")
    sheets = write_sheets(tmp_path / "sheets")
    both = read_small_pictures((str(tmp_path / "pets"), str(sheets)), (3, 8, 8))
    assert both.labels is not None
    assert both.classes == ["cat", "dog"]
    assert both.labels.bincount().tolist() == [32, 32]
    mixed = read_small_pictures((str(mnist), str(sheets)), (3, 8, 8))
    assert mixed.classes == sorted([*map(str, range(10)), "cat", "dog"])
    assert mixed.labels is not None
    assert mixed.classes[mixed.labels[-1]] == "dog"


def test_memory_urls_work() -> None:
    import fsspec

    fs = fsspec.filesystem("memory")
    fs.pipe_file("/small/train-images-idx3-ubyte", idx(digits(5)[0]))
    assert len(read_small_pictures("memory://small", (1, 28, 28))) == 5


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "not an idx file"),
        (idx(np.zeros((3, 2))), "not an idx file"),
        (idx(np.zeros((3, 2, 2)))[:-1], "not the 12 bytes"),
        (idx(np.zeros((3, 2, 2))) + b"x", "not the 12 bytes"),
        (bytes((0, 0, 8, 3)) + b"\xff" * 12, "raise the memory limit"),
        (gzip.compress(idx(np.zeros((3, 2, 2))), mtime=0)[:-12], "not an idx file"),
        (gzip.compress(idx(digits(3)[0]), mtime=0)[:-60], "not the 2,352 bytes"),
        (gzip.compress(idx(np.zeros((3, 2, 2))), mtime=0)[:12] + b"damaged", "damaged"),
        (gzip.compress(bytes((0, 0, 8, 3)) + b"\0\0\0\3" * 3 + bytes(1 << 24), mtime=0), "not the 27 bytes"),
    ],
)
def test_damaged_and_hostile_idx_files_are_refused(data: bytes, told: str, tmp_path: Path) -> None:
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(data)
    with pytest.raises(DataError, match=told):
        read_small_pictures(str(tmp_path), (1, 28, 28))


@given(st.binary(max_size=64))
def test_any_bytes_are_pictures_or_an_error_that_names_the_file(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    folder = tmp_path_factory.mktemp("idx")
    (folder / "t10k-images-idx3-ubyte").write_bytes(bytes((0, 0, 8, 3)) + data)
    told = ""
    try:
        assert read_small_pictures(str(folder), (1, 4, 4), memory_limit=1 << 20).pictures.shape[1:] == (1, 4, 4)
    except DataError as error:
        told = str(error)
    assert not told or "t10k-images-idx3-ubyte" in told


def test_labels_that_are_too_few_are_refused(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(idx(np.zeros(59)))
    with pytest.raises(DataError, match="59 labels for 60 pictures"):
        read_small_pictures(str(tmp_path), (1, 28, 28))


@pytest.mark.parametrize(
    "change",
    [
        {"tile": 0}, {"tile": 9}, {"columns": 100}, {"columns": 0}, {"columns": "x"}, {"classes": ["cat"]},
        {"sheets": 5},
        {"sheets": {"../secret.png": {"split": "train", "label": 0, "count": 0, "files": []}}},
    ],
)  # fmt: skip
def test_sheets_that_are_not_as_their_index_says_are_refused(change: dict, tmp_path: Path) -> None:
    folder = write_sheets(tmp_path / "sheets", count=8)
    index = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps(index | change))
    with pytest.raises(DataError, match="sheets"):
        read_small_pictures(str(folder), (3, 8, 8))


def test_too_many_pictures_for_the_memory_are_refused_before_they_are_read(tmp_path: Path, mnist: Path) -> None:
    for source in (mnist, folder_of(tmp_path)):
        with pytest.raises(DataError, match="raise the memory limit"):
            read_small_pictures(str(source), (3, 64, 64), memory_limit=100_000)


@pytest.mark.parametrize("shape", [(2, 8, 8), (1, 0, 8), (3, 8, 5000)])
def test_shapes_out_of_bounds_are_refused(shape: tuple[int, int, int], mnist: Path) -> None:
    with pytest.raises(DataError, match="shape"):
        read_small_pictures(str(mnist), shape)


def test_an_empty_folder_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no pictures below"):
        read_small_pictures(str(tmp_path), (1, 8, 8))


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3]))
def test_resizing_keeps_a_flat_picture_flat(
    height: int, width: int, to_height: int, to_width: int, channels: int
) -> None:
    for pixels in (np.full((height, width), 77, np.uint8), np.full((height, width, 3), 77, np.uint8)):
        small = resized(pixels, (channels, to_height, to_width))
        assert small.shape == (channels, to_height, to_width)
        assert (abs(small.astype(int) - 77) <= 1).all()


@given(st.lists(st.text("abc", min_size=1), min_size=1, max_size=6, unique=True), st.integers(1, 3))
def test_few_pictures_are_held_out_all_the_same(names: list[str], least: int) -> None:
    """As many as are asked for, whatever their names are, as far as there are so many; never the same on both sides."""
    pictures = torch.arange(len(names)).view(-1, 1, 1, 1).byte()
    trained, held_out = split_by_name(SmallPictures(pictures, None, names, []), 0.05, least)
    assert sorted(trained.names + held_out.names) == sorted(names)
    assert len(held_out) >= min(least, len(names))


@pytest.mark.parametrize("train", [True, False])
def test_a_folder_without_pictures_of_the_split_says_so(train: bool, tmp_path: Path) -> None:
    number = next(n for n in range(1000) if (share_of_name(f"{n}.png") < TEST_SHARE) == train)
    cv2.imwrite(str(tmp_path / f"{number}.png"), np.zeros((8, 8, 3), np.uint8))
    split = "training" if train else "test"
    with pytest.raises(DataError, match=f"none of 1 pictures below .* is a {split} picture.*add more"):
        read_small_pictures(str(tmp_path), (1, 4, 4), train=train)


@pytest.mark.parametrize("count", [1, 2, HELD_OUT_BATCH, HELD_OUT_BATCH + 1, 3 * HELD_OUT_BATCH + 1, HELD_OUT + 1])
def test_batches_of_a_validation_are_of_like_size(count: int) -> None:
    """None has one picture where there are more: contrast compares those of a batch."""
    few = SmallPictures(torch.zeros(count, 1, 2, 2, dtype=torch.uint8), None, [""] * count, [])
    source = SmallTrainingSet(few, few)
    for batches in (source.held_out_batches(0), source.training_batches(0)):
        sizes = [len(batch) for batch in batches]
        assert sum(sizes) == min(count, HELD_OUT)
        assert max(sizes) <= HELD_OUT_BATCH
        assert min(sizes) >= min(2, count)


def training_set(augment: tuple[str, ...] = ()) -> SmallTrainingSet:
    pictures = torch.from_numpy(np.random.default_rng(0).integers(256, size=(50, 1, 16, 16), dtype=np.uint8))
    whole = SmallPictures(pictures, None, [str(number) for number in range(50)], [])
    return SmallTrainingSet(*split_by_name(whole, 0.2), augment)


def test_batches_come_from_the_seed_and_never_from_held_out_pictures() -> None:
    source = training_set()
    first, again, other = (source.draw(200, 0, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    held_out = {picture.numpy().tobytes() for picture in torch.cat(source.held_out_batches(0))}
    assert {picture.numpy().tobytes() for picture in first}.isdisjoint(held_out)
    assert len(torch.cat(source.training_batches(0))) == len(held_out)


@pytest.mark.parametrize("augment", [("mirror",), ("shift",), ("mirror", "shift")])
def test_augmentations_move_pictures_and_keep_their_kind(augment: tuple[str, ...]) -> None:
    plain = training_set().draw(40, 0, np.random.default_rng(3))
    varied = training_set(augment).draw(40, 0, np.random.default_rng(3))
    assert varied.shape == plain.shape
    assert varied.dtype == torch.uint8
    assert 0 < sum(torch.equal(a, b) for a, b in zip(plain, varied, strict=True)) + 1 < 40
    if augment == ("mirror",):
        assert all(torch.equal(a, b) or torch.equal(a.flip(2), b) for a, b in zip(plain, varied, strict=True))
