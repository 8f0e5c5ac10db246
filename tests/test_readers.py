"""What napari's File > Open gets from us."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_embryo.io import ImageError, read_image, write_ome_tiff
from napari_embryo.readers import get_reader, read_layers


def png(path: Path, seed: int = 0) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (6, 8)).astype("uint8")).save(path)
    return str(path)


@pytest.mark.parametrize(
    "name",
    [
        "a.tif",
        "a.ome.tif",
        "a.TIFF",
        "a.png",
        "a.JPG",
        "a.jpeg",
        "a.BMP",
        "a.npy",
        "a.gif",
        "a.mp4",
        "a.mov",
        "a.wmv",
        "a.mpg",
    ],
)
def test_image_files_are_ours_by_name(name: str) -> None:
    assert get_reader(name) is not None


@pytest.mark.parametrize("path", ["a.csv", "a.zarr", "a", "", "a.svg", [], ["a.png", "b.csv"], None, 3, b"a.png"])
def test_everything_else_is_left_to_others(path: Any) -> None:
    assert get_reader(path) is None


def test_folders(tmp_path: Path) -> None:
    assert get_reader(str(tmp_path)) is None
    (tmp_path / "a.csv").write_text("x")
    assert get_reader(str(tmp_path)) is None
    png(tmp_path / "x.zarr" / "a.png")
    assert get_reader(str(tmp_path / "x.zarr")) is None
    png(tmp_path / "wells" / "F0" / "a.png")
    assert get_reader(str(tmp_path / "wells")) is not None
    assert get_reader(str(tmp_path)) is not None


def test_a_folder_that_cannot_be_listed_is_left_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert get_reader(str(tmp_path)) is None


def read(path: Any) -> list[Any]:
    reader = get_reader(path)
    assert reader is not None
    return reader(path)


def test_reading_a_file_and_a_folder(tmp_path: Path) -> None:
    paths = [png(tmp_path / f"frame{i}.png", i) for i in range(3)]
    ((data, attributes, kind),) = read(paths[0])
    np.testing.assert_array_equal(data, read_image(paths[0]).data)
    assert (attributes["name"], attributes["axis_labels"], kind) == ("frame0", ("y", "x"), "image")
    for several in (str(tmp_path), paths):
        with pytest.warns(UserWarning, match="3 files are one embryo"):
            ((data, attributes, _),) = read(several)
        assert (data.shape, attributes["axis_labels"]) == ((3, 6, 8), ("t", "y", "x"))
    assert len(read(paths[:1])) == 1


def test_our_own_files_come_back_as_layers(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 4, (3, 6, 8)).astype("uint8")
    path = write_ome_tiff(
        tmp_path / "e_labels.ome.tif",
        labels,
        "TYX",
        kind="labels",
        names=("ICM", "TE", "ZP"),
        pixel_size_um=(0.5, 0.5),
        hours=(1, 2, 3),
    )
    ((data, attributes, kind),) = read(str(path))
    np.testing.assert_array_equal(data, labels)
    assert kind == "labels"
    assert (attributes["scale"], attributes["units"]) == ((1, 0.5, 0.5), ("hour", "um", "um"))
    assert attributes["metadata"]["classes"] == ("ICM", "TE", "ZP")


def test_attention_maps_come_back_one_by_one(tmp_path: Path) -> None:
    maps = np.random.default_rng(0).random((2, 6, 8), "float32")
    path = write_ome_tiff(tmp_path / "e_attention.ome.tif", maps, "CYX", names=("SA1", "CA1"), pixel_size_um=(0.5, 0.5))
    layers = read(str(path))
    assert [attributes["name"] for _, attributes, _ in layers] == ["e_attention SA1", "e_attention CA1"]
    for (data, attributes, kind), expected in zip(layers, maps, strict=True):
        np.testing.assert_array_equal(np.asarray(data), expected)
        assert (attributes["scale"], attributes["units"], kind) == ((0.5, 0.5), ("um", "um"), "image")


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.ome.tif").write_bytes(b"II*\0")
    with pytest.raises(ImageError, match=r"a\.ome\.tif"):
        read(str(tmp_path / "a.ome.tif"))


def test_napari_accepts_the_layers(tmp_path: Path) -> None:
    layers = pytest.importorskip("napari.layers")
    for i in range(3):
        png(tmp_path / f"frame{i}.png", i)
    with pytest.warns(UserWarning, match="3 files are one embryo"):
        ((data, attributes, kind),) = read(str(tmp_path))
    layer = layers.Layer.create(data, attributes, kind)
    assert (layer.axis_labels, [str(unit) for unit in layer.units]) == (("t", "y", "x"), ["pixel"] * 3)
    assert sys.modules["dask"] is not None


def test_labels_come_back_in_their_classes_colors(tmp_path: Path) -> None:
    from napari.layers import Layer

    from napari_embryo.io import write_ome_tiff
    from napari_embryo.render import COLORS

    path = write_ome_tiff(
        tmp_path / "a_labels.ome.tif", np.eye(9, dtype=np.uint8) * 2, "YX", kind="labels", names=("ICM", "TE")
    )
    layer = Layer.create(*read_layers(str(path))[0])
    np.testing.assert_allclose(layer.colormap.map(2)[:3], np.array(COLORS["TE"]) / 255, atol=1e-6)
    assert list(layer.features["class"]) == ["background", "ICM", "TE"]


# --- single cells -----------------------------------------------------------------------------------------------------


def cells_file(path: Path, numbers: list[int], axes: str, **about: Any) -> np.ndarray:
    """What ``napari-embryo segment`` writes: masks that overlap; returns them, a channel each in front."""
    leading = {"CYX": (), "TCYX": (3,), "TFCYX": (3, 2)}[axes]
    masks = (np.random.default_rng(0).random((len(numbers), *leading, 6, 8)) > 0.4).astype("uint8")
    names = [f"cell {number}" for number in numbers]
    write_ome_tiff(path, np.moveaxis(masks, 0, -3), axes, kind="labels", names=names, pixel_size_um=(0.5, 0.4), **about)
    return masks


@pytest.mark.parametrize(
    ("numbers", "axes", "about", "scale", "units"),
    [
        ([1, 2, 3], "CYX", {}, (0.5, 0.4), ("um", "um")),
        ([1], "TCYX", {"hours": (1, 3, 5)}, (2, 0.5, 0.4), ("hour", "um", "um")),
        ([1, 4], "TCYX", {"hours": (1, 3, 9)}, (1, 0.5, 0.4), ("pixel", "um", "um")),
        ([2, 300], "TFCYX", {"focus_um": (-3, 0)}, (1, 3, 0.5, 0.4), ("pixel", "um", "um", "um")),
    ],
)
def test_single_cells_come_back_as_labels(
    tmp_path: Path, numbers: list[int], axes: str, about: dict[str, Any], scale: tuple[float, ...], units: Any
) -> None:
    masks = cells_file(tmp_path / "day 2_cells.ome.tif", numbers, axes, **about)
    layers = read(str(tmp_path / "day 2_cells.ome.tif"))[::-1]
    assert [attributes["name"] for _, attributes, _ in layers] == [f"cell {number}" for number in numbers]
    for (labels, attributes, kind), number, mask in zip(layers, numbers, masks, strict=True):
        assert kind == "labels"
        np.testing.assert_array_equal(labels, number * mask.astype(int))
        assert (attributes["scale"], attributes["units"]) == (scale, units)
        metadata = attributes["metadata"]
        assert (metadata["result"], metadata["cell"], metadata["classes"]) == ("cells", number, ("cell",))
        assert metadata["source_layer"] == {"name": "day 2"}
        assert metadata["napari_embryo"]["hours"] == about.get("hours")
    assert len({attributes["metadata"]["run"] for _, attributes, _ in layers}) == 1


def test_a_file_opened_twice_is_two_runs(tmp_path: Path) -> None:
    cells_file(tmp_path / "a.ome.tif", [1], "CYX")
    runs = {read(str(tmp_path / "a.ome.tif"))[0][1]["metadata"]["run"] for _ in range(2)}
    assert len(runs) == 2


def test_single_cells_come_back_in_their_colors(tmp_path: Path) -> None:
    from napari.layers import Layer

    from napari_embryo.render import cell_color

    cells_file(tmp_path / "a.ome.tif", [1, 9], "CYX")
    for data in read(str(tmp_path / "a.ome.tif")):
        layer = Layer.create(*data)
        number = layer.metadata["cell"]
        np.testing.assert_allclose(layer.get_color(number)[:3], np.divide(cell_color(number), 255), atol=1e-6)
        assert list(layer.features["class"]) == ["background", f"cell {number}"]


@pytest.mark.parametrize(("names", "kind"), [(("cell 1", "nucleus"), "labels"), (("cell 1", "cell 2"), "image")])
def test_other_channels_are_no_cells(tmp_path: Path, names: tuple[str, ...], kind: Any) -> None:
    write_ome_tiff(tmp_path / "a.ome.tif", np.ones((2, 6, 8), "uint8"), "CYX", names=names, kind=kind)
    assert [found for _, _, found in read(str(tmp_path / "a.ome.tif"))] == [kind] * 2


@pytest.mark.parametrize(
    ("name", "dtype"), [("a.tif", "int32"), ("a_cp_masks.tif", "uint16"), ("a_masks.png", "uint8")]
)
def test_label_files_of_others_come_back_as_labels(tmp_path: Path, name: str, dtype: str) -> None:
    labels = np.random.default_rng(0).integers(0, 5, (6, 8)).astype(dtype)
    tifffile.imwrite(tmp_path / name, labels) if name.endswith("tif") else Image.fromarray(labels).save(tmp_path / name)
    ((data, attributes, kind),) = read(str(tmp_path / name))
    assert (kind, "rgb" in attributes) == ("labels", False)
    np.testing.assert_array_equal(data, labels)
