"""Samples saved from napari: they come back as they were, and none is ever overwritten."""

import json
import multiprocessing
from pathlib import Path

import numpy as np
import pytest

from napari_embryo import data
from napari_embryo.families import BLASTOCYST_CLASSES, FRAGMENT_CLASSES
from napari_embryo.settings import DataSettings

IMAGE = np.random.default_rng(0).integers(0, 60_000, (20, 30)).astype(np.uint16)


def painted(*values: int) -> np.ndarray:
    labels = np.zeros(IMAGE.shape, np.int64)
    for value in values:
        labels[2 * value : 2 * value + 2, 5:25] = value
    return labels


def truth_of(folder: Path, classes: tuple[str, ...] = BLASTOCYST_CLASSES) -> data.Truth:
    (sample,) = data.find_samples(DataSettings(folders=(str(folder),)), classes).samples
    return sample.read()


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    labels = painted(1, 3)
    path = data.save_sample(tmp_path, "my embryo: 3", IMAGE, labels, BLASTOCYST_CLASSES, {"by": "Ada"})
    truth = truth_of(tmp_path)
    np.testing.assert_array_equal(truth.image, IMAGE)
    np.testing.assert_array_equal(truth.masks, [labels == i for i in (1, 2, 3)])
    assert truth.known.tolist() == [True, False, True], "a blastocyst's TE that is not painted was not drawn"
    assert path.name == "my_embryo_3.v001.json"
    assert json.loads(path.read_text())["about"] == {"by": "Ada"}


def test_the_newest_version_counts_and_the_older_ones_stay(tmp_path: Path) -> None:
    paths = [
        data.save_sample(tmp_path, "a", IMAGE, painted(i), BLASTOCYST_CLASSES, {"embryo": "E7"}) for i in (1, 2, 3)
    ]
    first = [p.read_bytes() for p in sorted(tmp_path.glob("a.v001*"))]
    data.save_sample(tmp_path, "a.v002", IMAGE, painted(1), BLASTOCYST_CLASSES, {})
    assert [p.name for p in paths] == ["a.v001.json", "a.v002.json", "a.v003.json"]
    assert len(first) == 3
    assert [p.read_bytes() for p in sorted(tmp_path.glob("a.v001*"))] == first
    found = data.find_samples(DataSettings(folders=(str(tmp_path),)), BLASTOCYST_CLASSES)
    assert [(s.name, s.embryo) for s in found.samples] == [("a", "E7"), ("a.v002", "a.v002")]
    assert found.samples[0].read().known.tolist() == [False, False, True]


def test_pictures_of_one_file_name_are_not_versions_of_each_other(tmp_path: Path) -> None:
    """Two folders with an a.tif each, and two names that a file name cannot tell apart."""
    said = [("a", "/x/a.tif"), ("a", "/y/a.tif"), ("a", "/x/a.tif"), ("a", "/y/a.tif"), ("b?c", ""), ("b:c", "")]
    paths = [
        data.save_sample(tmp_path, name, IMAGE, painted(1), BLASTOCYST_CLASSES, {"source": source})
        for name, source in said
    ]
    assert [p.name.removesuffix(".json") for p in paths] == [
        "a.v001",
        "a-2.v001",
        "a.v002",
        "a-2.v002",
        "b_c.v001",
        "b_c-2.v001",
    ]
    found = data.find_samples(DataSettings(folders=(str(tmp_path),)), BLASTOCYST_CLASSES)
    assert sorted((s.name, s.embryo) for s in found.samples)[:2] == [("a", "a"), ("a-2", "a")]


def test_a_version_that_was_cut_off_is_passed_over(tmp_path: Path) -> None:
    """Power fails while v002 is written: its JSON is still empty."""
    data.save_sample(tmp_path, "a", IMAGE, painted(1), BLASTOCYST_CLASSES, {})
    (tmp_path / "a.v002.json").touch()
    assert truth_of(tmp_path).known.tolist() == [True, False, False]
    assert data.save_sample(tmp_path, "a", IMAGE, painted(2), BLASTOCYST_CLASSES, {}).name == "a.v003.json"


def test_a_failed_save_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises((TypeError, ValueError)):
        data.save_sample(tmp_path, "a", IMAGE.astype(complex), painted(1), BLASTOCYST_CLASSES, {})
    assert list(tmp_path.iterdir()) == []


def _save_some(folder: str) -> None:
    for _ in range(5):
        data.save_sample(Path(folder), "a", IMAGE, painted(1), BLASTOCYST_CLASSES, {})


def test_two_processes_that_save_at_once_lose_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    both = [context.Process(target=_save_some, args=(str(tmp_path),)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    assert sorted(p.name for p in tmp_path.glob("*.json")) == [f"a.v{i:03d}.json" for i in range(1, 11)]
    assert all(json.loads(p.read_text()) for p in tmp_path.glob("*.json"))


def test_painted_cells_are_cells(tmp_path: Path) -> None:
    labels = painted(1, 4, 7)
    data.save_sample(tmp_path, "a", IMAGE, labels, ("cell",), {})
    np.testing.assert_array_equal(truth_of(tmp_path, ("fragment",)).cells, [labels == i for i in (1, 4, 7)])


def test_cells_that_overlap_come_back_whole(tmp_path: Path) -> None:
    """A layer each, as they are drawn in napari; one that was emptied is none."""
    layers = np.zeros((3, *IMAGE.shape), np.uint8)
    layers[0, 2:12, 3:15] = layers[2, 6:18, 8:28] = 1
    data.save_sample(tmp_path, "a", IMAGE, layers, ("cell",), {})
    truth = truth_of(tmp_path, ("cell",))
    np.testing.assert_array_equal(truth.cells, layers[[0, 2]] > 0)
    np.testing.assert_array_equal(truth.masks[0], (layers > 0).any(0))
    assert truth.known.tolist() == [True]
    assert not truth_of(tmp_path, ("fragment",)).masks.any()


@pytest.mark.parametrize(
    ("values", "about", "known"),
    [
        ((1,), {}, [True, False]),
        ((1,), {"known": ["fragment", "embryo"]}, [True, False]),
        ((1, 2), {}, [True, True]),
        ((2,), {}, [True, True]),
        ((), {}, [True, False]),
    ],
)
def test_an_embryo_that_is_not_painted_is_unknown(
    tmp_path: Path, values: tuple[int, ...], about: dict[str, list[str]], known: list[bool]
) -> None:
    """Else its fragments would be all of it; samples of earlier versions say that it is known."""
    data.save_sample(tmp_path, "a", IMAGE, painted(*values), FRAGMENT_CLASSES, about)
    truth = truth_of(tmp_path, FRAGMENT_CLASSES)
    assert truth.known.tolist() == known
    (seen,) = data.find_samples(DataSettings(folders=(str(tmp_path),)), FRAGMENT_CLASSES).contents.values()
    assert (seen.ratio is None) == (2 not in values)


def test_no_fragment_painted_means_none(tmp_path: Path) -> None:
    data.save_sample(tmp_path, "a", IMAGE, painted(), ("fragment",), {})
    assert truth_of(tmp_path, ("fragment", "ZP")).known.tolist() == [True, False]


@pytest.mark.parametrize(
    ("image", "labels", "message"),
    [
        (IMAGE, painted(4), "from 0 to 4"),
        (IMAGE, painted(1) - 1, "from -1"),
        (IMAGE, painted(1)[:5], "the labels"),
        (IMAGE, painted(1) * 0.5, "must be integers"),
        (np.stack([IMAGE] * 2), painted(1), "one gray image"),
        (IMAGE, np.stack([painted(1)] * 2), "the labels"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, image: np.ndarray, labels: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        data.save_sample(tmp_path, "a", image, labels, BLASTOCYST_CLASSES, {})
