"""What napari saves through us comes back as the same layer."""

import json
from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from napari.layers import Image, Labels, Layer

from napari_embryo.image import EmbryoImage
from napari_embryo.io import LayerData, read_image, read_ome_tiff, to_napari
from napari_embryo.readers import get_reader
from napari_embryo.writers import write_cells, write_image, write_labels

LABELS = {2: ("y", "x"), 3: ("t", "y", "x"), 4: ("t", "f", "y", "x")}
UNITS = {"t": ("hour", "pixel", "minute"), "f": ("um", "pixel"), "y": ("um", "pixel", "nm"), "x": ("um", "pixel", "nm")}


def read(path: Path) -> Layer:
    reader = get_reader(str(path))
    assert reader is not None
    ((data, attributes, kind),) = reader(str(path))
    return Layer.create(data, attributes, kind)


def same(layer: Layer, other: Layer) -> None:
    np.testing.assert_array_equal(np.asarray(other.data), np.asarray(layer.data))
    assert other.data.dtype == layer.data.dtype
    for key in ("name", "units", "axis_labels"):
        assert getattr(other, key) == getattr(layer, key)
    for key in ("scale", "translate"):
        np.testing.assert_array_equal(getattr(other, key), getattr(layer, key))


@st.composite
def layer_data(draw: st.DrawFn, dtypes: tuple[str, ...]) -> tuple[npt.NDArray[Any], dict[str, Any]]:
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=4, min_side=2, max_side=4))
    labels = LABELS[len(shape)]
    dtype = np.dtype(draw(st.sampled_from(dtypes)))
    elements = st.integers(0, 100) if dtype.kind in "iu" else st.floats(-10, 10, width=16)
    numbers = st.floats(1e-2, 1e2)
    return draw(hnp.arrays(dtype, shape, elements=elements)), {
        "scale": draw(st.tuples(*[numbers] * len(shape))),
        "translate": draw(st.tuples(*[st.floats(-50, 50)] * len(shape))),
        "units": tuple(draw(st.sampled_from(UNITS[label])) for label in labels),
        "axis_labels": labels,
        "name": draw(st.text("abc µ", min_size=1, max_size=5)),
    }


FIXTURE = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@settings(max_examples=40, deadline=None, suppress_health_check=FIXTURE)
@given(drawn=layer_data(("uint8", "uint16", "int16", "int64", "float16", "float32", "float64")))
def test_image_layers_come_back(tmp_path: Path, drawn: tuple[npt.NDArray[Any], dict[str, Any]]) -> None:
    layer = Image(drawn[0], **drawn[1])
    path = tmp_path / "a.ome.tif"
    assert write_image(str(path), layer.data, layer.as_layer_data_tuple()[1]) == [str(path)]
    same(layer, read(path))


@settings(max_examples=40, deadline=None, suppress_health_check=FIXTURE)
@given(drawn=layer_data(("uint8", "uint16", "int32", "int64")))
def test_labels_layers_come_back(tmp_path: Path, drawn: tuple[npt.NDArray[Any], dict[str, Any]]) -> None:
    layer = Labels(drawn[0], **drawn[1])
    path = tmp_path / "a.ome.tif"
    write_labels(str(path), layer.data, layer.as_layer_data_tuple()[1])
    back = read(path)
    assert isinstance(back, Labels)
    same(layer, back)


def test_an_embryo_comes_back(tmp_path: Path) -> None:
    data = np.random.default_rng(0).integers(0, 255, (3, 6, 8)).astype("uint8")
    image = EmbryoImage(data, "TYX", "e", (0.5, 0.5), (1.0, 2.0, 4.0), metadata={"well": 7, "rgb": data})
    layer = Image(*to_napari(image)[:1], **to_napari(image)[1])
    write_image(str(tmp_path / "a.ome.tif"), layer.data, layer.as_layer_data_tuple()[1])
    back = read_image(tmp_path / "a.ome.tif")
    np.testing.assert_array_equal(np.asarray(back.data), data)
    assert (back.axes, back.pixel_size_um, back.hours) == ("TYX", (0.5, 0.5), (1.0, 2.0, 4.0))
    again = read(tmp_path / "a.ome.tif")
    assert again.metadata["well"] == 7
    assert "rgb" not in again.metadata


def test_lazy_layers_are_written_frame_by_frame(tmp_path: Path) -> None:
    computed: list[Any] = []
    frames = np.arange(5 * 4 * 4, dtype="uint16").reshape(5, 4, 4)

    def frame(block: Any, block_info: Any = None) -> Any:
        computed.append(block.shape)
        return block

    lazy = dask.array.from_array(frames, chunks=(1, 4, 4)).map_blocks(frame, meta=frames[:0])
    write_image(str(tmp_path / "a.ome.tif"), lazy, {"name": "a"})
    assert computed == [(1, 4, 4)] * 5
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.ome.tif"), frames)


def test_color_layers(tmp_path: Path) -> None:
    color = np.random.default_rng(0).integers(0, 255, (6, 8, 3)).astype("uint8")
    layer = Image(color, rgb=True, scale=(0.5, 0.5), units=("um", "um"))
    write_image(str(tmp_path / "a.ome.tif"), layer.data, layer.as_layer_data_tuple()[1])
    back = read(tmp_path / "a.ome.tif")
    assert isinstance(back, Image)
    assert back.rgb
    same(layer, back)


def test_multiscale_layers_are_written_at_their_finest(tmp_path: Path) -> None:
    levels = [np.zeros((64, 64), "u1"), np.zeros((32, 32), "u1")]
    layer = Image(levels, multiscale=True)
    write_image(str(tmp_path / "a.ome.tif"), layer.data, layer.as_layer_data_tuple()[1])
    assert read(tmp_path / "a.ome.tif").data.shape == (64, 64)


@pytest.mark.parametrize("shape", [(4, 4), (2, 4, 4), (2, 2, 4, 4), (2, 2, 2, 4, 4)])
def test_layers_that_say_nothing_about_their_axes(tmp_path: Path, shape: tuple[int, ...]) -> None:
    layer = Image(np.random.default_rng(0).random(shape))
    write_image(str(tmp_path / "a.ome.tif"), layer.data, layer.as_layer_data_tuple()[1])
    same(layer, read(tmp_path / "a.ome.tif"))


# --- single cells -----------------------------------------------------------------------------------------------------

STILL = {"scale": (0.5, 0.4), "translate": (3.0, 4.0), "units": ("um", "um"), "axis_labels": ("y", "x")}
FILM = {
    "scale": (1.0, 0.5, 0.4),
    "translate": (0.0, 3.0, 4.0),
    "units": ("pixel", "um", "um"),
    "axis_labels": ("t", "y", "x"),
}


def cell(number: int, labels: npt.NDArray[Any], run: str = "a", name: str = "", **about: Any) -> LayerData:
    """As the Segment widget makes it."""
    hours = (1.0, 3.0, 9.0) if labels.ndim == 3 else None
    kept = {"axes": "TYX" if hours else "YX", "pixel_size_um": (0.5, 0.4), "hours": hours, "focus_um": None}
    told = {"result": "cells", "run": run, "cell": number, "score": 1 - number / 10, "classes": ("cell",)}
    origin = {"family": "vqamodal", "source": "day 2", "source_layer": {"name": "day 2", "unique_id": "7"}}
    placed = FILM if hours else STILL
    metadata = {**origin, **told, "measurements": [{"area_px": 3}], "napari_embryo": kept, **about}
    return labels, {**placed, "name": name or f"day 2 cell {number}", "metadata": metadata}, "labels"


def painted(number: int, hw: tuple[int, ...] = (12, 16)) -> npt.NDArray[Any]:
    labels = np.zeros(hw, np.uint8)
    labels[..., 2:8, 2 * number : 2 * number + 6] = number
    return labels


def opened(path: Path) -> list[Layer]:
    reader = get_reader(str(path))
    assert reader is not None
    return [Layer.create(*data) for data in reader(str(path))][::-1]


@pytest.mark.parametrize("hw", [(12, 16), (3, 12, 16)])
def test_cells_come_back_and_can_be_written_again(tmp_path: Path, hw: tuple[int, ...]) -> None:
    """Also one that is not in every frame, and where the second cell was thrown away."""
    layers = [cell(number, painted(number, hw)) for number in (3, 1)]
    if len(hw) == 3:
        layers[0][0][-1] = 0
    paths = [tmp_path / "x.ome.tif", tmp_path / "again.ome.tif"]
    assert write_cells(str(paths[0]), layers) == [str(paths[0]), str(tmp_path / "x_cells.json")]
    write_cells(str(paths[1]), [layer.as_layer_data_tuple() for layer in opened(paths[0])])
    for path in paths:
        for layer, (labels, about, _) in zip(opened(path), layers[::-1], strict=True):
            np.testing.assert_array_equal(layer.data, labels)
            assert layer.name == f"cell {about['metadata']['cell']}"
            assert layer.units == Labels(labels, units=about["units"]).units
            for key in ("scale", "translate", "axis_labels"):
                assert tuple(getattr(layer, key)) == about[key]
            for key in ("cell", "score", "family", "source_layer"):
                assert layer.metadata[key] == about["metadata"][key]
            assert layer.metadata["napari_embryo"]["hours"] == about["metadata"]["napari_embryo"]["hours"]


def test_cells_are_written_as_the_command_line_does(tmp_path: Path) -> None:
    write_cells(str(tmp_path / "x_cells.ome.tif"), [cell(number, painted(number, (3, 12, 16))) for number in (1, 2)])
    ome = read_ome_tiff(tmp_path / "x_cells.ome.tif")
    assert (ome.axes, ome.data.dtype, ome.kind, ome.names) == ("TCYX", np.uint8, "labels", ("cell 1", "cell 2"))
    assert (ome.pixel_size_um, ome.hours) == ((0.5, 0.4), (1, 3, 9))
    np.testing.assert_array_equal(ome.data[0], [painted(1) > 0, painted(2) > 0])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x_cells.json", "x_cells.ome.tif"]


def test_cells_are_coco_beside(tmp_path: Path) -> None:
    from napari_embryo.data import rle

    film = [cell(number, painted(number, (3, 12, 16))) for number in (1, 2)]
    film[1][0][1] = 0
    write_cells(str(tmp_path / "x.ome.tif"), film)
    written = json.loads((tmp_path / "x_cells.json").read_text())
    assert [(image["index"], image["hours"], image["n_cells"]) for image in written["images"]] == [
        ([0], 1, 2),
        ([1], 3, 1),
        ([2], 9, 2),
    ]
    assert {(image["file_name"], image["embryo"], *image["um_per_px"]) for image in written["images"]} == {
        ("day 2.png", "day_2", 0.5, 0.4)
    }
    found = [(a["image_id"], a["track"], round(a["score"], 3)) for a in written["annotations"]]
    assert found == [(1, 1, 0.9), (1, 2, 0.8), (2, 1, 0.9), (3, 1, 0.9), (3, 2, 0.8)]
    masks = [rle.decode(a["rle"]["counts"], (12, 16)) for a in written["annotations"][:2]]
    np.testing.assert_array_equal(masks, [painted(1) > 0, painted(2) > 0])
    assert written["info"]["family"] == "vqamodal"
    assert "run" not in written["info"]


def test_what_is_corrected_can_be_learned_from(tmp_path: Path) -> None:
    """The picture beside the JSON file is a sample of its whole cells."""
    from PIL import Image as Pictures

    from napari_embryo import data
    from napari_embryo.settings import DataSettings

    Pictures.fromarray(np.arange(192, dtype=np.uint8).reshape(12, 16)).save(tmp_path / "day 2.png")
    write_cells(str(tmp_path / "x_cells.ome.tif"), [cell(number, painted(number)) for number in (1, 2)])
    (sample,) = data.find_samples(DataSettings(folders=(str(tmp_path / "x_cells.json"),)), ("cell",)).samples
    np.testing.assert_array_equal(sample.read().cells, [painted(1) > 0, painted(2) > 0])


def test_a_duplicate_is_a_cell_of_its_own(tmp_path: Path) -> None:
    layers = [cell(1, painted(1)), cell(1, painted(1) * 0, name="day 2 cell 1 copy"), cell(2, painted(2))]
    layers[1][0][9:11, 1:4] = 1
    write_cells(str(tmp_path / "x.ome.tif"), layers)
    back = opened(tmp_path / "x.ome.tif")
    assert [layer.metadata["cell"] for layer in back] == [1, 3, 2]
    np.testing.assert_array_equal(back[1].data, 3 * layers[1][0])


def test_pixels_of_other_labels_are_said(tmp_path: Path) -> None:
    labels = painted(1)
    labels[9, 1:4] = 2
    with pytest.warns(UserWarning, match="cell 1 has 3 pixels of other labels, not written: paint with label 1"):
        write_cells(str(tmp_path / "x.ome.tif"), [cell(1, labels), cell(2, painted(2))])
    np.testing.assert_array_equal(opened(tmp_path / "x.ome.tif")[0].data, painted(1))


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([cell(1, painted(1)), (painted(1), {"name": "mine"}, "labels")], "mine is not a single cell"),
        ([cell(1, painted(1)), cell(2, painted(2), run="b")], r"belong to several runs \(day 2 cell 1, day 2 cell 2\)"),
        ([cell(1, painted(1)), cell(2, painted(2, (12, 17)))], r"several shapes .*cell 2 \(12, 17\)"),
    ],
)
def test_other_labels_are_refused_together(tmp_path: Path, layers: list[LayerData], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_cells(str(tmp_path / "x.ome.tif"), layers)
    assert list(tmp_path.iterdir()) == []


def test_a_json_file_of_others_stays(tmp_path: Path) -> None:
    """napari asks before it replaces the OME-TIFF, and knows nothing of the other file."""
    (tmp_path / "x_cells.json").write_text("mine")
    layers = [cell(number, painted(number)) for number in (1, 2)]
    with pytest.raises(ValueError, match=r"x_cells\.json already exists"):
        write_cells(str(tmp_path / "x.ome.tif"), layers)
    (tmp_path / "x.ome.tif").touch()
    write_cells(str(tmp_path / "x.ome.tif"), layers)
    assert json.loads((tmp_path / "x_cells.json").read_text())["images"]


def test_one_cell_alone_comes_back_as_the_cell_it_was(tmp_path: Path) -> None:
    labels, about, _ = cell(2, painted(2))
    write_labels(str(tmp_path / "x.ome.tif"), labels, about)
    layer = read(tmp_path / "x.ome.tif")
    np.testing.assert_array_equal(layer.data, labels)
    assert [layer.metadata[key] for key in ("result", "run", "cell")] == ["cells", "a", 2]
    assert list(layer.features["class"]) == ["background", "cell 2"]
