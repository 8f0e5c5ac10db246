"""Our own stacks: read picture by picture, and painted on like any labels."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from napari.layers import Labels

from napari_embryo import io
from napari_embryo.io import layers
from napari_embryo.io.editable import EditablePlanes
from napari_embryo.readers import get_reader

SHAPE = (3, 2, 5, 6)


def lazy(stored: npt.NDArray[Any]) -> EditablePlanes:
    return EditablePlanes(lambda index: stored[index], stored.shape[:-2], stored.shape[-2:], stored.dtype)


def an_index() -> st.SearchStrategy[Any]:
    part = st.slices(5)
    numbers = st.tuples(*(st.integers(-size, size - 1) for size in SHAPE))
    slices = st.tuples(st.integers(-3, 2) | st.slices(3), st.integers(-2, 1) | st.slices(2), part)
    arrays = st.lists(numbers, min_size=1, max_size=6).map(
        lambda places: tuple(np.array(axis) % size for axis, size in zip(zip(*places, strict=True), SHAPE, strict=True))
    )
    return st.one_of(numbers, slices, arrays, st.just(Ellipsis), st.integers(0, 2), st.slices(3))


@settings(max_examples=200, deadline=None)
@given(index=an_index(), value=st.integers(0, 9), after=an_index())
def test_it_reads_and_takes_paint_like_an_array(index: Any, value: int, after: Any) -> None:
    stored = np.random.default_rng(0).integers(0, 9, SHAPE)
    ours, array = lazy(stored), stored.copy()
    np.testing.assert_array_equal(ours[index], array[index])
    ours[index] = value
    array[index] = value
    np.testing.assert_array_equal(ours[after], array[after])
    np.testing.assert_array_equal(np.asarray(ours), array)
    np.testing.assert_array_equal(ours == value, array == value)
    assert ours.max() == array.max()
    assert (ours.shape, ours.ndim, ours.dtype, len(ours)) == (array.shape, 4, array.dtype, 3)


def test_napari_paints_on_it_and_takes_it_back() -> None:
    ours, array = Labels(lazy(np.zeros(SHAPE, np.uint8))), Labels(np.zeros(SHAPE, np.uint8))
    for layer in (ours, array):
        layer.brush_size = 3
        layer.paint((1, 1, 2, 2), 3)
        layer.fill((0, 0, 4, 4), 2)
    assert np.asarray(ours.data).any()
    np.testing.assert_array_equal(np.asarray(ours.data), array.data)
    for layer in (ours, array):
        layer.undo()
        layer.undo()
    assert not np.asarray(ours.data).any()


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "READ_AT_ONCE", 0)


@pytest.mark.usefixtures("at_once")
def test_large_cells_and_labels_can_be_painted_saved_and_read_again(tmp_path: Path) -> None:
    masks = (np.random.default_rng(0).random((3, 2, 6, 8)) > 0.5).astype(np.uint8)
    names = ("cell 1", "cell 4")
    io.write_ome_tiff(tmp_path / "a_cells.ome.tif", masks, "TCYX", kind="labels", names=names)
    reader = get_reader(str(tmp_path / "a_cells.ome.tif"))
    assert reader is not None
    for (data, _, kind), number, place in zip(reader(str(tmp_path / "a_cells.ome.tif")), (4, 1), (1, 0), strict=True):
        assert (type(data), kind) == (EditablePlanes, "labels")
        np.testing.assert_array_equal(np.asarray(data), number * masks[:, place].astype(int))
    labels = np.random.default_rng(0).integers(0, 4, (3, 6, 8)).astype("uint8")
    path = io.write_ome_tiff(tmp_path / "l.ome.tif", labels, "TYX", kind="labels", names=("ICM", "TE", "ZP"))
    ((data, attributes, kind),) = reader(str(path))
    data[1, 2:4] = 3
    io.write_layer(path, data, attributes, "labels")
    labels[1, 2:4] = 3
    np.testing.assert_array_equal(io.read_ome_tiff(path).data, labels)


@pytest.mark.usefixtures("at_once")
def test_large_image_layers_are_lazy(tmp_path: Path) -> None:
    stored = np.random.default_rng(0).random((3, 6, 8)).astype("float32")
    path = io.write_layer(tmp_path / "a.ome.tif", stored, {"name": "a"}, "image")
    ((data, _, kind),) = io.written_layers(path)
    assert (kind, data.numblocks) == ("image", (3, 1, 1))
    np.testing.assert_array_equal(np.asarray(data), stored)


PEAK = """
import resource, sys
import numpy, napari.layers, dask.array, tifffile
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
from napari_embryo.readers import get_reader
path = sys.argv[1]
layers = get_reader(path)(path)
print(len(layers), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs getrusage")
def test_opening_large_files_of_ours_needs_little_memory(tmp_path: Path) -> None:
    names = [f"cell {i + 1}" for i in range(10)]
    with io.OmeTiffStackWriter(
        tmp_path / "t_cells.ome.tif", (60, 10, 500, 500), "uint8", "TCYX", kind="labels", names=names
    ) as stack:
        for _ in range(600):
            stack.write(np.ones((500, 500), "uint8"))
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(tmp_path / "t_cells.ome.tif")], capture_output=True, text=True, check=True
    )
    n_layers, megabytes = map(int, done.stdout.split())
    assert n_layers == 10
    assert megabytes < 60
