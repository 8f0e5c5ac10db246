"""Images and folders: what comes from disk, what is assumed, and what is said about broken files."""

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageSequence

from napari_embryo.image import EmbryoImage
from napari_embryo.io import (
    ImageError,
    MissingImageError,
    OpenChoices,
    OpenPlan,
    from_napari,
    list_images,
    open_plan,
    plan_file,
    plan_folder,
    read_image,
    replacing,
    to_gray,
    to_napari,
    write_ome_tiff,
)
from napari_embryo.io import pictures as pictures_module
from napari_embryo.io.names import natural_key
from napari_embryo.io.numbers import missing_numbers, ranges_text

Array = npt.NDArray[Any]


def gray(dtype: str = "uint8", shape: tuple[int, ...] = (6, 8), seed: int = 0) -> Array:
    values = np.random.default_rng(seed).random(shape)
    return (values if dtype.startswith("f") else values * np.iinfo(dtype).max).astype(dtype)


def save(path: Path, array: Array) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() in (".tif", ".tiff"):
        tifffile.imwrite(path, array)
    elif path.suffix == ".npy":
        np.save(path, array)
    else:
        Image.fromarray(array).save(path)
    return path


# --- one file -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("a.tif", "uint8"),
        ("a.TIFF", "uint16"),
        ("a.tif", "int16"),
        ("a.tif", "float32"),
        ("a.png", "uint8"),
        ("a.PNG", "uint16"),
        ("a.bmp", "uint8"),
        ("a.BMP", "uint8"),
        ("a.npy", "float64"),
        ("a.npy", "uint16"),
    ],
)
def test_gray_files_come_as_they_are(tmp_path: Path, name: str, dtype: str) -> None:
    array = gray(dtype)
    image = read_image(save(tmp_path / name, array))
    np.testing.assert_array_equal(image.data, array)
    assert (image.data.dtype, image.axes, image.name) == (array.dtype, "YX", "a")
    assert (image.pixel_size_um, image.hours) == (None, None)
    assert image.metadata["source"] == str(tmp_path / name)


@pytest.mark.parametrize("name", ["a.jpg", "a.JPEG"])
def test_jpeg(tmp_path: Path, name: str) -> None:
    path = save(tmp_path / name, gray(shape=(32, 32)))
    with Image.open(path) as image:
        np.testing.assert_array_equal(read_image(path).data, np.array(image))


@pytest.mark.parametrize(
    ("name", "samples", "dtype"),
    [
        ("a.png", 3, "uint8"),
        ("a.png", 4, "uint8"),
        ("a.bmp", 3, "uint8"),
        ("a.tif", 3, "uint8"),
        ("a.tif", 3, "uint16"),
    ],
)
def test_color_becomes_gray_and_is_kept(tmp_path: Path, name: str, samples: int, dtype: str) -> None:
    color = gray(dtype, (6, 8, samples))
    image = read_image(save(tmp_path / name, color))
    expected = color[..., :3] @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(image.data, expected, atol=0.52 if dtype == "uint8" else 1.5)
    np.testing.assert_array_equal(image.metadata["rgb"], color)
    assert image.data.dtype == dtype


def test_gray_weights_are_those_of_pillow() -> None:
    color = gray(shape=(50, 50, 3))
    np.testing.assert_array_equal(to_gray(color), np.array(Image.fromarray(color).convert("L")))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float32"])
@pytest.mark.parametrize("samples", [1, 2, 3, 4])
def test_equal_samples_keep_their_value(dtype: str, samples: int) -> None:
    one = gray(dtype)
    np.testing.assert_allclose(to_gray(np.stack([one] * samples, -1)), one, rtol=1e-6)


@pytest.mark.parametrize("mode", ["1", "P", "LA", "CMYK", "RGBA", "I;16"])
def test_other_modes_of_pillow(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    original = Image.fromarray(gray("uint16")) if mode == "I;16" else Image.fromarray(gray()).convert(mode)
    original.save(path)
    with Image.open(path) as saved:
        expected = np.array(saved) if mode == "I;16" else np.array(saved.convert("RGB").convert("L"))
    np.testing.assert_array_equal(read_image(path).data, expected)


@pytest.mark.parametrize("compression", ["zlib", "lzw", "jpeg", "deflate"])
def test_compressed_tiff(tmp_path: Path, compression: str) -> None:
    pages = [Image.fromarray(gray(shape=(32, 32), seed=i)) for i in range(3)]
    names = {"zlib": "tiff_adobe_deflate", "deflate": "tiff_deflate", "lzw": "tiff_lzw", "jpeg": "jpeg"}
    path = tmp_path / "a.tif"
    pages[0].save(path, save_all=True, append_images=pages[1:], compression=names[compression])
    with Image.open(path) as image:
        expected = [np.array(page) for page in ImageSequence.Iterator(image)]
    np.testing.assert_array_equal(np.asarray(read_image(path).data), expected)


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_pages_of_either_byte_order(tmp_path: Path, byteorder: Any, compression: str | None) -> None:
    array = gray("uint16", (4, 6, 8))
    tifffile.imwrite(tmp_path / "a.tif", array, byteorder=byteorder, compression=compression, photometric="minisblack")
    image = read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(image.data.compute(), array)
    assert image.data.dtype.isnative


def test_planar_color(tmp_path: Path) -> None:
    color = gray(shape=(3, 6, 8))
    tifffile.imwrite(tmp_path / "a.tif", color, photometric="rgb", planarconfig="separate")
    image = read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(image.data, to_gray(np.moveaxis(color, 0, -1)))


def test_multi_page_tiff_is_time_and_says_that_nothing_says_so(tmp_path: Path) -> None:
    array = gray(shape=(5, 6, 8))
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        for page in array:
            tiff.write(page, metadata=None, contiguous=False)
    plan = plan_file(tmp_path / "a.tif")
    assert "assumed: the axis of length 5 is time: the file does not say" in plan.text()
    assert plan.axes_choices == ("TYX", "FYX", "CYX")
    (image,) = open_plan(plan.edited(OpenChoices(axes="FYX")))
    assert image.axes == "FYX"
    np.testing.assert_array_equal(image.data.compute(), array)
    assert "assumed" not in plan.edited(OpenChoices(axes="FYX")).text()
    assert any("does not say" in note for note in read_image(tmp_path / "a.tif").metadata["notes"])


@pytest.mark.parametrize("axes", ["TFYX", "FTYX"])
def test_two_unnamed_axes(tmp_path: Path, axes: str) -> None:
    array = gray(shape=(4, 3, 6, 8))
    plan = plan_file(save(tmp_path / "a.npy", array))
    (image,) = open_plan(plan.edited(OpenChoices(axes=axes, hours_per_frame=0.5)))
    np.testing.assert_array_equal(image.data.compute(), array if axes == "TFYX" else array.swapaxes(0, 1))
    assert image.axes == "TFYX"
    assert image.hours == tuple(0.5 * i for i in range(image.shape[0]))


def test_axes_that_an_image_cannot_have(tmp_path: Path) -> None:
    stack = plan_file(save(tmp_path / "stack.npy", gray(shape=(3, 6, 8))))
    with pytest.raises(ImageError, match="it can be read as CYX or FYX or TYX"):
        stack.edited(OpenChoices(axes="TFYX"))
    picture = plan_file(save(tmp_path / "a.npy", gray())).edited(OpenChoices(axes="TYX"))
    assert picture.said == ("a: it cannot have the axes TYX: it is YX",)


# --- what TIFF says about sizes -------------------------------------------------------------------------------------

OME_CASES = [
    ({"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.25}, (0.25, 0.5)),
    ({"PhysicalSizeX": 500, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.0005, "PhysicalSizeYUnit": "mm"}, (0.5, 0.5)),
    ({"PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "pixel"}, None),
    ({}, None),
]


@pytest.mark.parametrize(("metadata", "expected"), OME_CASES)
def test_ome_pixel_size(tmp_path: Path, metadata: dict[str, Any], expected: tuple[float, float] | None) -> None:
    tifffile.imwrite(tmp_path / "a.ome.tif", gray(), metadata={"axes": "YX", **metadata})
    image = read_image(tmp_path / "a.ome.tif")
    assert image.name == "a"
    assert image.pixel_size_um == (pytest.approx(expected) if expected else None)


@pytest.mark.parametrize(
    ("metadata", "hours"),
    [
        ({"TimeIncrement": 900}, (0, 0.25, 0.5)),
        ({"TimeIncrement": 2, "TimeIncrementUnit": "h"}, (0, 2, 4)),
        ({"Plane": {"DeltaT": [60, 90, 150], "DeltaTUnit": ["min"] * 3}}, (1, 1.5, 2.5)),
        ({}, None),
    ],
)
def test_ome_hours(tmp_path: Path, metadata: dict[str, Any], hours: tuple[float, ...] | None) -> None:
    tifffile.imwrite(tmp_path / "a.ome.tif", gray(shape=(3, 6, 8)), metadata={"axes": "TYX", **metadata})
    image = read_image(tmp_path / "a.ome.tif")
    assert image.axes == "TYX"
    assert image.hours == (pytest.approx(hours) if hours else None)
    assert "notes" not in image.metadata


def test_ome_focal_planes_in_another_order(tmp_path: Path) -> None:
    array = gray("uint16", (2, 3, 6, 8))
    tifffile.imwrite(tmp_path / "a.ome.tif", array, metadata={"axes": "ZTYX", "PhysicalSizeZ": 15})
    image = read_image(tmp_path / "a.ome.tif")
    np.testing.assert_array_equal(image.data.compute(), array.swapaxes(0, 1))
    assert (image.axes, image.focus_um) == ("TFYX", (0, 15))


def test_channels_become_images(tmp_path: Path) -> None:
    array = gray("float32", (2, 3, 6, 8))
    tifffile.imwrite(tmp_path / "a.ome.tif", array, metadata={"axes": "TCYX", "Channel": {"Name": ["x", "y", "z"]}})
    images = open_plan(plan_file(tmp_path / "a.ome.tif"))
    assert [image.name for image in images] == ["a x", "a y", "a z"]
    for i, image in enumerate(images):
        np.testing.assert_array_equal(image.data.compute(), array[:, i])
    with pytest.raises(ImageError, match="3 images"):
        read_image(tmp_path / "a.ome.tif")


def test_imagej(tmp_path: Path) -> None:
    array = gray("uint16", (3, 6, 8))
    metadata = {"axes": "TYX", "unit": "um", "finterval": 1800.0}
    tifffile.imwrite(tmp_path / "a.tif", array, imagej=True, resolution=(2, 4), metadata=metadata)
    image = read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(image.data.compute(), array)
    assert image.pixel_size_um == pytest.approx((0.25, 0.5))
    assert image.hours == pytest.approx((0, 0.5, 1))


@pytest.mark.parametrize(
    ("resolution", "unit", "expected"),
    [
        ((20000, 10000), "CENTIMETER", (1.0, 0.5)),
        ((25400, 25400), "INCH", (1.0, 1.0)),
        ((300, 300), "INCH", None),
        ((1, 1), "NONE", None),
    ],
)
def test_resolution_tags_count_with_a_real_unit(
    tmp_path: Path, resolution: tuple[int, int], unit: Any, expected: tuple[float, float] | None
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", gray(), resolution=resolution, resolutionunit=unit)
    image = read_image(tmp_path / "a.tif")
    assert image.pixel_size_um == (pytest.approx(expected) if expected else None)
    assert any("no image of an embryo" in note for note in image.metadata.get("notes", ())) == (
        resolution == (300, 300)
    )


# --- bad files ------------------------------------------------------------------------------------------------------


def truncated(path: Path) -> None:
    save(path, gray(shape=(64, 64)))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def truncated_pages(path: Path) -> None:
    tifffile.imwrite(path, gray(shape=(4, 64, 64)), compression="zlib", photometric="minisblack")
    path.write_bytes(path.read_bytes()[:-3000])


def pickled(path: Path) -> None:
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)


def five_axes(path: Path) -> None:
    tifffile.imwrite(path, gray(shape=(2, 2, 2, 6, 8)), photometric="minisblack", metadata={"axes": "HRQYX"})


BAD_FILES: list[tuple[str, Callable[[Path], object], str]] = [
    ("cut.tif", truncated, "truncated"),
    ("cut.png", truncated, "truncated"),
    ("cut.jpg", truncated, "truncated"),
    ("cut.npy", truncated, "truncated"),
    ("cut_pages.tif", truncated_pages, "truncated"),
    ("empty.tif", lambda path: path.write_bytes(b""), "0 bytes"),
    ("empty.png", lambda path: path.write_bytes(b""), "0 bytes"),
    ("empty.npy", lambda path: path.write_bytes(b""), "0 bytes"),
    ("text.png", lambda path: path.write_text("hello"), "not of the type its name says"),
    ("text.tif", lambda path: path.write_text("hello"), "not of the type its name says"),
    ("text.npy", lambda path: path.write_text("hello"), "not of the type its name says"),
    ("text.mp4", lambda path: path.write_text("hello"), "not of the type its name says"),
    ("nan.tif", lambda path: save(path, np.where(np.eye(6) > 0, np.nan, 1).astype("f4")), "6 of 36 values are NaN"),
    ("inf.npy", lambda path: save(path, np.full((3, 3), np.inf)), "9 of 9 values are NaN or infinite"),
    ("one.png", lambda path: save(path, gray(shape=(1, 1))), "1 x 1 pixels"),
    ("line.tif", lambda path: save(path, gray(shape=(1, 9))), "9 x 1 pixels"),
    ("flat.npy", lambda path: save(path, np.zeros(9)), "at least two axes"),
    ("words.npy", lambda path: save(path, np.full((3, 3), "a")), "real numbers"),
    ("complex.npy", lambda path: save(path, np.ones((3, 3), complex)), "real numbers"),
    ("pickled.npy", pickled, "not of the type its name says"),
    ("five.tif", five_axes, "not understood"),
    ("five.npy", lambda path: save(path, np.zeros((2, 2, 2, 6, 8))), "does not say what they mean"),
    ("odd.xyz", lambda path: path.write_text("hello"), "ending in .xyz"),
]


@pytest.mark.parametrize(("name", "make", "says"), BAD_FILES, ids=[name for name, _, _ in BAD_FILES])
def test_a_bad_file_is_named_with_what_came(
    tmp_path: Path, name: str, make: Callable[[Path], object], says: str
) -> None:
    make(tmp_path / name)
    with pytest.raises(ImageError, match=name.replace(".", r"\.")) as caught:
        np.asarray(read_image(tmp_path / name).data)
    assert says in str(caught.value)
    assert str(caught.value).endswith(".")


def test_nothing_there(tmp_path: Path) -> None:
    for look in (read_image, plan_folder):
        with pytest.raises(FileNotFoundError, match="nowhere") as caught:
            look(tmp_path / "nowhere.png")
        assert isinstance(caught.value, MissingImageError)


def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.png", gray())

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Image, "open", refuse)
    with pytest.raises(ImageError, match=r"a\.png: the system does not allow reading it"):
        read_image(path)
    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(ImageError, match="does not allow"):
        plan_folder(tmp_path)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="plan_folder"):
        read_image(tmp_path)


# --- folders --------------------------------------------------------------------------------------------------------


def only(plan: OpenPlan) -> EmbryoImage:
    (image,) = open_plan(plan)
    return image


def test_a_sequence_is_a_lazy_stack_in_natural_order(tmp_path: Path) -> None:
    frames = [gray(seed=i) for i in range(12)]
    for i, frame in enumerate(frames):
        save(tmp_path / f"frame {i + 1}.png", frame)
    plan = plan_folder(tmp_path)
    assert "12 frames, 8 x 6 uint8, no pixel size known, no hours known" in plan.text()
    assert "12 files are one embryo: their names count frames in time (frame)" in plan.text()
    image = only(plan)
    assert (image.axes, image.name, image.data.numblocks) == ("TYX", tmp_path.name, (12, 1, 1))
    np.testing.assert_array_equal(image.data.compute(), frames)
    for index in (3, -1, slice(2, 9, 3), (slice(None), 2), (4, slice(1, 3), -1), [1, 5]):
        np.testing.assert_array_equal(np.asarray(image.data[index]), np.array(frames)[index])
    assert pickle.loads(pickle.dumps(image.data))[0].compute().shape == (6, 8)


def counted(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> list[Path]:
    """The paths that a function is called with from now on."""
    function, paths = getattr(module, name), []

    def count(path: Path, *args: Any, **kwargs: Any) -> Any:
        paths.append(path)
        return function(path, *args, **kwargs)

    monkeypatch.setattr(module, name, count)
    return paths


def test_nothing_but_the_wanted_frame_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = save(tmp_path / "t00000.png", gray())
    for i in range(1, 2000):
        os.link(first, tmp_path / f"t{i:05}.png")
    read = counted(monkeypatch, pictures_module, "read_picture")
    opened = counted(monkeypatch, Image, "open")
    image = only(plan_folder(tmp_path))
    assert image.shape == (2000, 6, 8)
    assert read == []
    assert len(opened) <= 64
    np.asarray(image.data[1234])
    assert [path.name for path in read] == ["t01234.png"]


def test_each_frame_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(5):
        save(tmp_path / f"t{i}.png", gray(shape=(6, 8, 3)))
    read = counted(monkeypatch, pictures_module, "read_picture")
    for _, plane in only(plan_folder(tmp_path)).planes():
        assert plane.shape == (6, 8)
    assert [path.name for path in read] == [f"t{i}.png" for i in range(5)]


def test_color_sequence_keeps_its_colors_lazily(tmp_path: Path) -> None:
    frames = [gray(shape=(6, 8, 3), seed=i) for i in range(3)]
    for i, frame in enumerate(frames):
        save(tmp_path / f"t{i}.png", frame)
    image = only(plan_folder(tmp_path))
    np.testing.assert_array_equal(image.metadata["rgb"].compute(), frames)
    np.testing.assert_array_equal(image.data.compute(), to_gray(np.array(frames)))


def incubator(folder: Path, well: int, runs: Iterator[int] | list[int], **about: Any) -> None:
    for run in runs:
        save(folder / f"D2013.01.28_S0717_I132_WELL{well}_RUN{run}.png", gray(seed=run, **about))


def test_incubator_names(tmp_path: Path) -> None:
    incubator(tmp_path, 7, [1, 2, 3, 5, 6, 9, 10])
    incubator(tmp_path, 8, [1, 2])
    plan = plan_folder(tmp_path)
    first, second = open_plan(plan.edited(OpenChoices(hours_per_frame=0.25, first_hour=20)))
    assert first.name == "D2013.01.28_S0717_I132_WELL7"
    about = {key: first.metadata[key] for key in ("date", "slide", "instrument", "well", "runs", "missing_runs")}
    assert about == {
        "date": "2013-01-28",
        "slide": "0717",
        "instrument": "132",
        "well": 7,
        "runs": (1, 2, 3, 5, 6, 9, 10),
        "missing_runs": (4, 7, 8),
    }
    assert first.hours == (20, 20.25, 20.5, 21, 21.25, 22, 22.25)
    np.testing.assert_array_equal(first.data[3].compute(), gray(seed=5))
    assert (second.metadata["well"], second.shape[0], second.metadata["missing_runs"]) == (8, 2, ())
    assert "missing runs: 4, 7-8" in plan.text()
    assert first.metadata["source"] == str(tmp_path)
    assert open_plan(plan)[0].hours is None


def test_missing_runs_can_be_empty_frames(tmp_path: Path) -> None:
    incubator(tmp_path, 7, [3, 4, 6])
    image = only(plan_folder(tmp_path).edited(OpenChoices(hours_per_frame=1, gaps="empty")))
    assert (image.hours, image.metadata["runs"]) == ((0, 1, 2, 3), (3, 4, 5, 6))
    assert [int(frame.any()) for frame in image.data.compute()] == [1, 1, 0, 1]


def test_focal_planes_by_name(tmp_path: Path) -> None:
    for plane in (-15, 0, 15):
        save(tmp_path / f"321_{plane}_2BB-.png", gray(seed=plane + 50))
        save(tmp_path / f"322_{plane}_3AA.png", gray(seed=plane + 80))
    first, second = open_plan(plan_folder(tmp_path))
    assert (first.axes, first.focus_um, first.name, first.metadata["grade"]) == (
        "FYX",
        (-15, 0, 15),
        "321_2BB-",
        "2BB-",
    )
    np.testing.assert_array_equal(second.data.compute(), [gray(seed=plane + 80) for plane in (-15, 0, 15)])


@pytest.mark.parametrize("pattern", ["D2013.01.28_S0717_I132_WELL7_RUN{}.png", "frame{}.png"])
def test_focal_planes_by_folder(tmp_path: Path, pattern: str) -> None:
    for plane in (-15, 0, 15):
        for run in (1, 2, 3):
            save(tmp_path / f"F{plane}" / pattern.format(run), gray(seed=100 * run + plane))
    image = only(plan_folder(tmp_path))
    assert (image.axes, image.shape, image.focus_um) == ("TFYX", (3, 3, 6, 8), (-15, 0, 15))
    np.testing.assert_array_equal(np.asarray(image.data[1, 2]), gray(seed=215))
    (best,) = open_plan(plan_folder(tmp_path).edited(OpenChoices(focus="best")))
    assert (best.axes, best.shape) == ("TYX", (3, 6, 8))


def test_one_picture_per_focal_folder(tmp_path: Path) -> None:
    for plane in (-15, 0, 15):
        save(tmp_path / f"F{plane}" / "embryo.png", gray(seed=plane + 50))
    image = only(plan_folder(tmp_path))
    assert (image.axes, image.focus_um) == ("FYX", (-15, 0, 15))


def test_a_frame_without_all_planes_is_a_missing_one(tmp_path: Path) -> None:
    for plane in (0, 15):
        incubator(tmp_path / f"F{plane}", 7, [1, 2, 3, 4])
    (tmp_path / "F15" / "D2013.01.28_S0717_I132_WELL7_RUN2.png").unlink()
    plan = plan_folder(tmp_path)
    assert "runs 2 lack a focal plane" in plan.text()
    assert only(plan).metadata["runs"] == (1, 3, 4)
    assert only(plan.edited(OpenChoices(gaps="empty"))).shape == (4, 2, 6, 8)


def test_folders_of_wells(tmp_path: Path) -> None:
    incubator(tmp_path / "a", 1, [1, 2])
    incubator(tmp_path / "b", 1, [1, 2, 3])
    names = [image.name for image in open_plan(plan_folder(tmp_path))]
    assert names == ["a_D2013.01.28_S0717_I132_WELL1", "b_D2013.01.28_S0717_I132_WELL1"]


def test_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for suffix in ("png", "bmp", "tif"):
        save(tmp_path / f"x.{suffix}", gray())
    assert {image.name for image in plan_folder(tmp_path).images} == {"x_png", "x_bmp", "x_tif"}


def test_names_that_are_no_count_stay_apart(tmp_path: Path) -> None:
    for patient in (305, 507, 622, 890):
        save(tmp_path / f"R13-{patient:04}.png", gray())
    assert [image.axes for image in open_plan(plan_folder(tmp_path))] == ["YX"] * 4
    stack = only(plan_folder(tmp_path, "stack"))
    assert (stack.axes, stack.shape[0]) == ("TYX", 4)
    assert len(plan_folder(tmp_path, "separate").images) == 4


def test_mixed_sizes_are_opened_apart(tmp_path: Path) -> None:
    for i in range(4):
        save(tmp_path / f"t{i}.png", gray(shape=(6 + i, 8)))
    plan = plan_folder(tmp_path)
    assert "sizes or types of the files differ" in plan.text()
    assert [image.shape for image in open_plan(plan)] == [(6 + i, 8) for i in range(4)]


def test_an_odd_size_is_left_out_and_named(tmp_path: Path) -> None:
    for i in range(5):
        save(tmp_path / f"t{i}.png", gray(shape=(9, 9) if i == 2 else (6, 8)))
    plan = plan_folder(tmp_path)
    assert only(plan).metadata["missing_runs"] == (2,)
    assert len(plan.problems) == 1
    assert "t2.png: 9 x 9 uint8" in plan.problems[0]


def test_the_rest_of_a_folder_opens(tmp_path: Path) -> None:
    incubator(tmp_path, 7, [1, 2, 3, 4, 5])
    run = "D2013.01.28_S0717_I132_WELL7_RUN{}.png".format
    (tmp_path / run(2)).write_text("hello")
    (tmp_path / run(4)).write_bytes(b"")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "._hidden.png").write_text("x")
    plan = plan_folder(tmp_path)
    assert [name in text for name, text in zip((run(4), run(2)), plan.problems, strict=True)] == [True, True]
    image = only(plan)
    assert image.metadata["runs"] == (1, 3, 5)
    np.testing.assert_array_equal(image.data.compute(), [gray(seed=seed) for seed in (1, 3, 5)])


@pytest.mark.parametrize("broken", ["text", "size"])
def test_a_file_broken_later_is_named_when_it_is_read(tmp_path: Path, broken: str) -> None:
    incubator(tmp_path, 7, [1, 2, 3])
    image = only(plan_folder(tmp_path))
    path = tmp_path / "D2013.01.28_S0717_I132_WELL7_RUN2.png"
    path.write_text("hello") if broken == "text" else save(path, gray(shape=(5, 5)))
    np.asarray(image.data[2])
    with pytest.raises(ImageError, match=r"WELL7_RUN2\.png"):
        np.asarray(image.data[1])


@pytest.mark.parametrize("content", [{}, {"a.txt": "x"}, {"inner/a.txt": "x"}])
def test_empty_folder(tmp_path: Path, content: dict[str, str]) -> None:
    for name, text in content.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    with pytest.raises(ImageError, match="no image in this folder"):
        plan_folder(tmp_path)


def test_a_folder_of_nothing_but_broken_files(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("x")
    with pytest.raises(ImageError, match=r"a\.png"):
        plan_folder(tmp_path)


def test_a_folder_of_stacks(tmp_path: Path) -> None:
    for i in range(3):
        write_ome_tiff(tmp_path / f"s{i}.ome.tif", gray(shape=(2, 6, 8)), "TYX")
    assert [(image.name, image.axes) for image in open_plan(plan_folder(tmp_path))] == [
        ("s0", "TYX"),
        ("s1", "TYX"),
        ("s2", "TYX"),
    ]


def test_sequence_of_single_page_tiffs_with_sizes(tmp_path: Path) -> None:
    for i in range(3):
        write_ome_tiff(tmp_path / f"t{i}.ome.tif", gray(seed=i), "YX", pixel_size_um=(0.5, 0.5))
    image = only(plan_folder(tmp_path))
    assert (image.axes, image.pixel_size_um) == ("TYX", (0.5, 0.5))


def test_two_files_of_one_run(tmp_path: Path) -> None:
    incubator(tmp_path, 7, [1, 2])
    save(tmp_path / "D2013.01.28_S0717_I132_WELL7_RUN02.png", gray())
    plan = plan_folder(tmp_path)
    assert only(plan).shape[0] == 2
    assert "1 files duplicate a frame" in plan.text()


def test_list_images(tmp_path: Path) -> None:
    for name in ("b10.png", "b2.PNG", "a.txt", "c.tif"):
        (tmp_path / name).write_text("x")
    assert [file.name for file in list_images(tmp_path)] == ["b2.PNG", "b10.png", "c.tif"]


# --- whole or not at all ---


def test_a_file_is_on_the_disk_before_it_takes_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut leaves the old one or the new one; then the folder, where the system can."""
    path = tmp_path / "a.txt"
    path.write_text("old")
    flushed: list[tuple[bytes, str]] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        there = os.fstat(descriptor)
        drafts = [p for p in tmp_path.iterdir() if p.suffix == ".part" and os.path.samestat(p.stat(), there)]
        flushed.append((drafts[0].read_bytes() if drafts else b"", path.read_text()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with replacing(path, lasting=True) as draft:
        draft.write_text("new")
        assert not flushed
    assert flushed[0] == (b"new", "old")
    assert flushed[1:] in ([], [(b"", "new")])
    assert list(tmp_path.iterdir()) == [path]


def test_what_went_wrong_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write() -> None:
        with replacing(path) as draft:
            draft.write_text("ne")
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        write()
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.txt", "old")]


# --- small rules ----------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 10**6), unique=True, min_size=1))
def test_natural_order(numbers: list[int]) -> None:
    names = [f"run{number}_x" for number in numbers]
    assert sorted(names, key=natural_key) == [f"run{number}_x" for number in sorted(numbers)]


@given(st.text(), st.text())
def test_any_two_names_can_be_ordered(a: str, b: str) -> None:
    sorted([a, b], key=natural_key)


@given(st.sets(st.integers(0, 60), min_size=2), st.integers(1, 5))
def test_missing_numbers_fill_the_count(present: set[int], step: int) -> None:
    runs = tuple(sorted(step * run for run in present))
    missing = missing_numbers(runs)
    together = np.diff(sorted((*runs, *missing)))
    assert not set(missing) & set(runs)
    assert len(set(together.tolist())) == 1


@pytest.mark.parametrize(
    ("numbers", "text"),
    [((), "none"), ((4,), "4"), ((4, 7, 8, 9), "4, 7-9"), (tuple(range(0, 20, 2)), "0, 2, 4, 6, 8, 10, ...")],
)
def test_ranges(numbers: tuple[int, ...], text: str) -> None:
    assert ranges_text(numbers) == text


# --- layers ---------------------------------------------------------------------------------------------------------

LAYER_CASES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (
        {"axes": "YX", "data": np.zeros((4, 5))},
        {"scale": (1, 1), "translate": (0, 0), "units": ("pixel", "pixel"), "axis_labels": ("y", "x")},
    ),
    (
        {"axes": "TYX", "data": np.zeros((2, 4, 5)), "pixel_size_um": (0.5, 0.25), "hours": (10, 12)},
        {
            "scale": (2, 0.5, 0.25),
            "translate": (10, 0, 0),
            "units": ("hour", "um", "um"),
            "axis_labels": ("t", "y", "x"),
        },
    ),
    (
        {"axes": "TYX", "data": np.zeros((3, 4, 5)), "hours": (10, 11, 13)},
        {"scale": (1, 1, 1), "translate": (0, 0, 0), "units": ("pixel",) * 3, "axis_labels": ("t", "y", "x")},
    ),
    (
        {"axes": "FYX", "data": np.zeros((3, 4, 5)), "focus_um": (-15, 0, 15)},
        {
            "scale": (15, 1, 1),
            "translate": (-15, 0, 0),
            "units": ("um", "pixel", "pixel"),
            "axis_labels": ("f", "y", "x"),
        },
    ),
]


@pytest.mark.parametrize(("fields", "expected"), LAYER_CASES)
def test_layer_keywords(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    image = EmbryoImage(name="e", metadata={"well": 7}, **fields)
    data, attributes, kind = to_napari(image)
    assert data is image.data
    assert kind == "image"
    assert {key: attributes[key] for key in expected} == expected
    back = from_napari(data, attributes)
    for key in ("axes", "name", "pixel_size_um", "hours", "focus_um", "metadata"):
        assert getattr(back, key) == getattr(image, key)


def test_a_layer_of_another_program() -> None:
    attributes = {"name": "x", "scale": (0.5, 500, 500), "units": ("minute", "nanometer", "nanometer")}
    image = from_napari(np.zeros((3, 4, 5)), attributes)
    assert (image.axes, image.pixel_size_um) == ("TYX", (0.5, 0.5))
    assert image.hours == pytest.approx((0, 0.5 / 60, 1 / 60))


def test_a_layer_with_too_many_axes() -> None:
    with pytest.raises(ValueError, match="5 dimensions"):
        from_napari(np.zeros((1, 2, 3, 4, 5)), {"name": "x"})


# --- real embryos ---------------------------------------------------------------------------------------------------


def test_real_time_lapses(data_dir: Path) -> None:
    images = open_plan(plan_folder(data_dir / "timelapse"))
    assert [image.shape for image in images] == [(285, 500, 500), (430, 500, 500)]
    assert [image.metadata["missing_runs"] for image in images] == [(), (95,)]
    with Image.open(data_dir / "timelapse" / "AA83-7" / "D2013.01.28_S0717_I132_WELL7_RUN93.jpeg") as file:
        np.testing.assert_array_equal(np.asarray(images[0].data[92]), np.array(file))


def test_real_focal_stacks(data_dir: Path) -> None:
    images = open_plan(plan_folder(data_dir / "focal"))
    assert [image.shape for image in images] == [(7, 500, 500)] * 12
    assert {image.focus_um for image in images} == {(-45, -30, -15, 0, 15, 30, 45)}


def test_real_blastocysts_stay_apart(data_dir: Path) -> None:
    folder = data_dir / "blastocyst" / "annotated"
    assert len(plan_folder(folder).images) == len(list_images(folder))


def test_importing_stays_light() -> None:
    code = (
        "import sys, napari_embryo.io, napari_embryo.readers, napari_embryo.writers;"
        "print([m for m in ('torch', 'dask', 'skimage', 'napari', 'pandas', 'scipy') if m in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )
