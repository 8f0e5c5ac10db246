"""A folder of results in a window of its own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from napari_embryo import io
from napari_embryo.widgets import _show_results as module


def pictures(folder: Path, names: tuple[str, ...]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        pixels = np.random.default_rng(number).integers(0, 255, (32, 40)).astype("uint8")
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


def result(folder: Path, name: str, shape: tuple[int, ...], source: Path) -> None:
    """Labels as `segment` writes them."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}{module.LABELS_SUFFIX}"
    labels, axes = np.ones(shape, np.uint8), "TYX"[-len(shape) :]
    io.write_ome_tiff(path, labels, axes, kind="labels", names=("ICM", "TE", "ZP"), metadata={"source": str(source)})


@pytest.fixture
def shown(make_viewer: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Any]:
    viewer = make_viewer()
    monkeypatch.setattr(module.napari, "Viewer", lambda **_: viewer)
    return module.show


WELL = "D2013.01.28_S0717_I132_WELL7"


@pytest.mark.parametrize(
    ("names", "shape", "name"),
    [
        ((f"{WELL}_RUN1", f"{WELL}_RUN2"), (2, 32, 40), WELL),
        (("7_-15_3AA", "7_0_3AA", "7_15_3AA"), (32, 40), "7_3AA"),
    ],
    ids=["time-lapse", "focal planes"],
)
def test_the_image_of_a_folder_lies_under_its_labels(
    tmp_path: Path, shown: Callable[[Path], Any], names: tuple[str, ...], shape: tuple[int, ...], name: str
) -> None:
    result(tmp_path / "out", name, shape, pictures(tmp_path / "in", names))
    layers = shown(tmp_path / "out").layers
    assert [(layer.name, layer.data.shape) for layer in layers] == [(name, shape), (f"{name} labels", shape)]


@pytest.mark.parametrize("shape", [(30, 40), (2, 32, 40)], ids=["other size", "more frames"])
def test_an_image_that_does_not_fit_its_labels_is_left_out(
    tmp_path: Path, shown: Callable[[Path], Any], shape: tuple[int, ...]
) -> None:
    result(tmp_path / "out", "a", shape, pictures(tmp_path / "in", ("a",)) / "a.png")
    result(tmp_path / "out", "b", shape, tmp_path / "gone.png")
    result(tmp_path / "out", "c", shape, Path())
    assert [layer.name for layer in shown(tmp_path / "out").layers] == ["a labels", "b labels", "c labels"]


@pytest.mark.parametrize(
    ("arguments", "says"), [([], "usage"), (["nowhere"], "nowhere: the folder contains no results of napari-embryo")]
)
def test_what_cannot_be_shown_is_said_in_a_line(arguments: list[str], says: str) -> None:
    with pytest.raises(SystemExit, match=says):
        module.main(arguments)


@pytest.mark.window
def test_cells_are_layers_of_their_own_that_overlap(shown, tmp_path: Path) -> None:
    masks = np.zeros((2, 3, 32, 40), np.uint8)  # frames, cells
    masks[:, 0, 4:20, 4:20] = masks[:, 1, 10:30, 10:30] = masks[1, 2, :5, :5] = 1
    about = {"kind": "labels", "names": ("cell 1", "cell 2", "cell 3"), "pixel_size_um": (0.5, 0.25)}
    io.write_ome_tiff(tmp_path / f"film{module.CELLS_SUFFIX}", masks, "TCYX", metadata={"family": "vqamodal"}, **about)
    viewer = shown(tmp_path)
    for number in (1, 2, 3):
        layer = viewer.layers[f"film cell {number}"]
        np.testing.assert_array_equal(layer.data, number * masks[:, number - 1])
        np.testing.assert_array_equal(layer.scale, (1, 0.5, 0.25))
        assert layer.contour == 2
    assert [layer.name for layer in viewer.layers][-1] == "film cell 1"
