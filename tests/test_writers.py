"""What napari saves through us comes back as the same layer."""

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
from napari_embryo.io import read_image, to_napari
from napari_embryo.readers import get_reader
from napari_embryo.writers import write_image, write_labels

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


def test_colour_layers(tmp_path: Path) -> None:
    colour = np.random.default_rng(0).integers(0, 255, (6, 8, 3)).astype("uint8")
    layer = Image(colour, rgb=True, scale=(0.5, 0.5), units=("um", "um"))
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
