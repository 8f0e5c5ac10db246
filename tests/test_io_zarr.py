"""OME-Zarr, written here with zarr alone and judged by yaozarrs: images, series, wells, labels, and labels put back."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_embryo.io import ImageError, open_layers, open_plan, plan_folder, plan_path, read_image, write_zarr_labels

zarr = pytest.importorskip("zarr")

SHAPE = (3, 2, 4, 48, 64)
PIXELS = np.arange(np.prod(SHAPE), dtype=np.uint16).reshape(SHAPE)
LABELS = np.zeros((3, 4, 48, 64), np.uint16)
LABELS[:, :, 5:20, 8:30] = np.arange(1, 13).reshape(3, 4, 1, 1)

AXES = [
    {"name": "t", "type": "time", "unit": "minute"},
    {"name": "c", "type": "channel"},
    {"name": "z", "type": "space", "unit": "micrometer"},
    {"name": "y", "type": "space", "unit": "nanometer"},
    {"name": "x", "type": "space", "unit": "nanometer"},
]
FORMATS = {"0.5": 3, "0.4": 2}


def said(version: str, about: dict[str, Any]) -> dict[str, Any]:
    return {"ome": {"version": version, **about}} if version == "0.5" else about


def scales(version: str, steps: list[float], axes: list[Any], n_levels: int = 2, **more: Any) -> dict[str, Any]:
    """Every level has half of the side lengths."""
    datasets = [
        {
            "path": str(level),
            "coordinateTransformations": [
                {"type": "scale", "scale": [*steps[:-2], steps[-2] * 2**level, steps[-1] * 2**level]}
            ],
        }
        for level in range(n_levels)
    ]
    named = {} if version == "0.5" else {"version": version}
    return {"multiscales": [{**named, "name": "e", "axes": axes, "datasets": datasets, **more}]}


def put(group: Any, name: str, pixels: Any, **more: Any) -> None:
    keys = {"name": "v2", "separator": "/"} if group.metadata.zarr_format == 2 else None
    array = group.create_array(
        name, shape=pixels.shape, chunks=(1,) * (pixels.ndim - 2) + pixels.shape[-2:], dtype=pixels.dtype,
        chunk_key_encoding=keys, **more,
    )  # fmt: skip
    array[:] = pixels


def write_image(path: Path, version: str, name: str = "", pixels: Any = PIXELS) -> Any:
    """A frame every 15 min, planes every 10 um, pixels of 600 x 500 nm, two channels."""
    root = zarr.open_group(str(path), mode="a", zarr_format=FORMATS[version])
    group = root.require_group(name) if name else root
    for level in range(2):
        put(group, str(level), pixels[..., :: 2**level, :: 2**level])
    look = {"color": "FFFFFF", "window": {"min": 0, "max": 65535, "start": 0, "end": 65535}}
    omero = {"omero": {"channels": [{"label": "TL", **look}, {"label": "DAPI", **look}]}}
    group.attrs.update(said(version, scales(version, [15, 1, 10, 600, 500], AXES) | omero))
    return root


@pytest.fixture(params=FORMATS)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def image(tmp_path: Path, version: str) -> Path:
    path = tmp_path / "e.ome.zarr"
    write_image(path, version)
    return path


def test_axes_sizes_hours_names_and_full_size(image: Path) -> None:
    images = open_plan(plan_path(image))
    assert [each.name for each in images] == ["e TL", "e DAPI"]
    for channel, each in enumerate(images):
        assert each.axes == "TFYX"
        assert np.array_equal(np.asarray(each.data), PIXELS[:, channel])
        assert each.pixel_size_um == pytest.approx((0.6, 0.5))
        assert each.focus_um == pytest.approx((0, 10, 20, 30))
        assert each.hours == pytest.approx((0, 0.25, 0.5))


def test_planes_are_read_when_they_are_needed(image: Path) -> None:
    data = open_plan(plan_path(image))[0].data
    for file in image.rglob("*"):
        if file.is_file() and file.name not in ("zarr.json", ".zarray", ".zattrs", ".zgroup"):
            file.unlink()
    assert not np.asarray(data[0, 0]).any()  # as zarr reads a chunk that is not there


def test_series_and_wells_are_images_of_their_own(tmp_path: Path, version: str) -> None:
    many, plate = tmp_path / "many.zarr", tmp_path / "plate.zarr"
    for name in ("0", "1"):
        write_image(many, version, name)
    root = write_image(plate, version, "B/2/0")
    root["B/2"].attrs.update(said(version, {"well": {"images": [{"path": "0"}]}}))
    root.attrs.update(said(version, {"plate": {"wells": [{"path": "B/2", "rowIndex": 1, "columnIndex": 1}]}}))
    assert [each.name for each in plan_path(many).images] == ["many 0 TL", "many 0 DAPI", "many 1 TL", "many 1 DAPI"]
    assert np.array_equal(np.asarray(open_plan(plan_path(plate))[1].data), PIXELS[:, 1])


def test_a_folder_of_them_holds_an_embryo_each(tmp_path: Path, version: str) -> None:
    for name in ("a", "b"):
        write_image(tmp_path / f"{name}.zarr", version)
    assert sorted(each.name for each in plan_folder(tmp_path).images) == ["a DAPI", "a TL", "b DAPI", "b TL"]


def test_labels_come_back_as_labels_and_painted_ones_can_be_put_back(image: Path, version: str) -> None:
    assert write_zarr_labels(image, "parts", LABELS, "TFYX") == image / "labels" / "parts"
    opened = [layer for planned in plan_path(image).images for layer in open_layers(planned)]
    data, about, kind = opened[-1]
    assert (kind, about["name"]) == ("labels", "e parts")
    assert np.array_equal(np.asarray(data), LABELS)
    assert about["scale"] == pytest.approx((0.25, 10, 0.6, 0.5))
    data[1, 2, 40:44, 50:60] = 99
    write_zarr_labels(image, "parts", data, "TFYX")
    changed = LABELS.copy()
    changed[1, 2, 40:44, 50:60] = 99
    root = zarr.open_group(str(image), mode="r")
    assert np.array_equal(root["labels/parts/0"][:], changed)
    assert sorted(each.name for each in (image / "labels").iterdir() if each.is_dir()) == ["parts"]
    attributes = dict(root["labels"].attrs)
    assert (attributes["ome"] if version == "0.5" else attributes)["labels"] == ["parts"]


def test_the_levels_of_labels_lie_on_those_of_the_image(image: Path) -> None:
    write_zarr_labels(image, "parts", LABELS, "TFYX")
    small = zarr.open_group(str(image), mode="r")["labels/parts/1"][:]
    assert small.shape == (3, 4, 24, 32)
    assert set(np.unique(small)) == set(range(13))
    area = (LABELS[0, 0] > 0).sum() / 4
    assert (small[0, 0] > 0).sum() == pytest.approx(area, rel=0.15)


def test_written_labels_are_valid(tmp_path: Path) -> None:
    yaozarrs = pytest.importorskip("yaozarrs")
    for version in FORMATS:
        path = tmp_path / f"{version}.ome.zarr"
        write_image(path, version)
        write_zarr_labels(path, "parts", LABELS, "TFYX")
        for part in (path, path / "labels", path / "labels" / "parts"):
            group = zarr.open_group(str(part), mode="r")
            about = dict(group.attrs)
            yaozarrs.validate_ome_object(about["ome"] if version == "0.5" else about)


def test_consolidated_metadata_know_the_new_labels(image: Path) -> None:
    zarr.consolidate_metadata(str(image))
    write_zarr_labels(image, "parts", LABELS, "TFYX")
    assert "labels/parts/0" in zarr.open_consolidated(str(image))


def test_an_error_leaves_the_old_labels(image: Path) -> None:
    write_zarr_labels(image, "parts", LABELS, "TFYX")

    class Broken:
        dtype, shape = LABELS.dtype, LABELS.shape

        def __getitem__(self, index: Any) -> Any:
            if index == (2, 3):
                raise OSError("the disk is gone")
            return LABELS[index] + 1

    before = {path: path.read_bytes() for path in image.rglob("*") if path.is_file()}
    with pytest.raises(ImageError, match="the disk is gone"):
        write_zarr_labels(image, "parts", Broken(), "TFYX")
    assert {path: path.read_bytes() for path in image.rglob("*") if path.is_file()} == before


WRONG_LABELS = {
    "another size": (LABELS[..., :-1], "TFYX", "parts", "have that size"),
    "one plane of many": (LABELS[0, 0], "YX", "parts", "have that size"),
    "numbers with a point": (LABELS / 2, "TFYX", "parts", "whole numbers"),
    "a name that leaves the folder": (LABELS, "TFYX", "../parts", "cannot be called"),
    "no name": (LABELS, "TFYX", " ", "cannot be called"),
}


@pytest.mark.parametrize(("data", "axes", "name", "why"), WRONG_LABELS.values(), ids=WRONG_LABELS.keys())
def test_what_cannot_be_put_back_is_refused(image: Path, data: Any, axes: str, name: str, why: str) -> None:
    before = sorted(image.rglob("*"))
    with pytest.raises(ImageError, match=why):
        write_zarr_labels(image, name, data, axes)
    assert sorted(image.rglob("*")) == before


def test_labels_of_one_of_many_images(tmp_path: Path, version: str) -> None:
    path = tmp_path / "many.zarr"
    for name in ("0", "1"):
        write_image(path, version, name)
    with pytest.raises(ImageError, match="2 of its images"):
        write_zarr_labels(path, "parts", LABELS, "TFYX")
    assert write_zarr_labels(path, "parts", LABELS, "TFYX", part="1") == path / "1" / "labels" / "parts"


def old_axes(path: Path) -> None:
    root = zarr.open_group(str(path), mode="w", zarr_format=2)
    put(root, "0", PIXELS)
    root.attrs.update({"multiscales": [{"version": "0.1", "datasets": [{"path": "0"}]}]})


def names_only(path: Path) -> None:
    root = zarr.open_group(str(path), mode="w", zarr_format=2)
    put(root, "0", PIXELS)
    root.attrs.update({"multiscales": [{"version": "0.3", "axes": list("tczyx"), "datasets": [{"path": "0"}]}]})


@pytest.mark.parametrize("write", [old_axes, names_only])
def test_old_versions(tmp_path: Path, write: Any) -> None:
    write(tmp_path / "e.zarr")
    first, second = open_plan(plan_path(tmp_path / "e.zarr"))
    assert (first.axes, first.pixel_size_um, first.hours) == ("TFYX", None, None)
    assert np.array_equal(np.asarray(second.data), PIXELS[:, 1])


def test_a_distance_without_a_unit_is_not_believed(tmp_path: Path, version: str) -> None:
    axes = [{"name": "y", "type": "space"}, {"name": "x", "type": "space"}]
    root = zarr.open_group(str(tmp_path / "e.zarr"), mode="w", zarr_format=FORMATS[version])
    for level in range(2):
        put(root, str(level), PIXELS[0, 0, 0, :: 2**level, :: 2**level])
    root.attrs.update(said(version, scales(version, [0.5, 0.5], axes)))
    image = read_image(tmp_path / "e.zarr")
    assert (image.axes, image.pixel_size_um) == ("YX", None)
    assert "y 0.5 without a unit" in image.metadata["notes"][0]


def damaged(path: Path, what: str) -> None:
    about = path / "zarr.json"
    content = json.loads(about.read_text())
    ome = content["attributes"]["ome"]
    if what == "no json":
        about.write_text("{")
    elif what == "no array":
        shutil.rmtree(path / "0")
    elif what == "cut chunk":
        chunk = next(each for each in (path / "0" / "c").rglob("*") if each.is_file())
        chunk.write_bytes(chunk.read_bytes()[:-7])
    elif what == "too few scales":
        ome["multiscales"][0]["datasets"][0]["coordinateTransformations"][0]["scale"] = [1, 2]
    elif what == "an axis that is unknown":
        ome["multiscales"][0]["axes"][0]["name"] = "lambda"
    elif what == "a path that leaves the folder":
        ome["multiscales"][0]["datasets"][0]["path"] = "../../secret"
    elif what == "a huge chunk":
        array = json.loads((path / "0" / "zarr.json").read_text())
        array["chunk_grid"]["configuration"]["chunk_shape"] = [1, 1, 1, 2**20, 2**20]
        (path / "0" / "zarr.json").write_text(json.dumps(array))
    if what != "no json":
        about.write_text(json.dumps(content))


@pytest.mark.parametrize(
    "what",
    ["no json", "no array", "cut chunk", "too few scales", "an axis that is unknown", "a path that leaves the folder",
     "a huge chunk"],
)  # fmt: skip
def test_damaged_ones_are_refused_by_name(tmp_path: Path, what: str) -> None:
    path = tmp_path / "e.zarr"
    write_image(path, "0.5")
    damaged(path, what)
    with pytest.raises(ImageError, match=r"e\.zarr"):
        [np.asarray(image.data) for image in open_plan(plan_path(path))]


def test_nothing_in_the_file_is_run(tmp_path: Path) -> None:
    """An array of objects is unpickled by zarr when it is read."""
    path = tmp_path / "e.zarr"
    write_image(path, "0.4")
    about = json.loads((path / "0" / ".zarray").read_text())
    about["filters"] = [{"id": "pickle", "protocol": 5}]
    (path / "0" / ".zarray").write_text(json.dumps(about))
    with pytest.raises(ImageError, match="pickle"):
        plan_path(path)


def test_a_missing_library_is_named(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "zarr", None)
    with pytest.raises(ImageError, match=r"pip install 'napari-embryo\[formats\]'"):
        plan_path(image)


def test_napari_saves_labels_where_they_were_opened_or_under_their_name(image: Path) -> None:
    from napari_embryo.writers import write_zarr_labels as writer

    write_zarr_labels(image, "parts", LABELS, "TFYX")
    data, about, _ = [layer for planned in plan_path(image).images for layer in open_layers(planned)][-1]
    assert writer(str(image), data, about) == [str(image / "labels" / "parts")]
    about |= {"name": "embryo cells", "metadata": {}}
    assert writer(str(image), data, about) == [str(image / "labels" / "embryo cells")]
    with pytest.raises(ImageError, match="no such folder"):
        writer(str(image.with_name("new.ome.zarr")), data, about)
