"""OME-TIFF and the small atomic files: what is written comes back, and nothing half-written stays."""

import csv
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from napari_embryo.io import (
    ImageError,
    OmeTiffStackWriter,
    read_image,
    read_ome_tiff,
    write_csv_atomic,
    write_ome_tiff,
    write_png,
)

AXES = ("YX", "TYX", "FYX", "CYX", "TFYX", "TCYX", "CFYX", "TCFYX", "YXS", "TYXS")
DTYPES = ("bool", "uint8", "uint16", "uint32", "int8", "int16", "int32", "int64", "float16", "float32", "float64")
SIZES = st.floats(1e-3, 1e3)


@st.composite
def stacks(draw: st.DrawFn) -> dict[str, Any]:
    axes = draw(st.sampled_from(AXES))
    dtype = np.dtype(draw(st.sampled_from(("uint8", "uint16") if "S" in axes else DTYPES)))
    shape = tuple(draw(st.sampled_from((3, 4)) if axis == "S" else st.integers(1, 4)) for axis in axes)
    elements = st.integers(-(2**31), 2**31 - 1) if dtype == np.int64 else None
    sizes = dict(zip(axes, shape, strict=True))
    return {
        "array": draw(hnp.arrays(dtype, shape, elements=elements)),
        "axes": axes,
        "name": draw(st.text(max_size=8)),
        "pixel_size_um": draw(st.none() | st.tuples(SIZES, SIZES)),
        "hours": draw(st.none() | st.tuples(*[st.floats(0, 200)] * sizes["T"])) if "T" in sizes else None,
        "focus_um": draw(st.none() | st.tuples(*[st.floats(-99, 99)] * sizes["F"])) if "F" in sizes else None,
        "names": draw(st.tuples(*[st.text(max_size=5)] * sizes["C"])) if "C" in sizes else (),
        "kind": draw(st.sampled_from(("image", "labels"))),
    }


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stack=stacks())
def test_what_is_written_is_read_back(tmp_path: Path, stack: dict[str, Any]) -> None:
    array, axes = stack.pop("array"), stack.pop("axes")
    back = read_ome_tiff(write_ome_tiff(tmp_path / "a.ome.tif", array, axes, **stack))
    np.testing.assert_array_equal(back.data, array)
    assert (back.data.dtype, back.axes) == (array.dtype, axes)
    assert {key: getattr(back, key) for key in stack} == stack


@pytest.mark.parametrize("axes", ["YX", "TYX", "CYX", "TCYX", "TFYX"])
def test_tifffile_reads_the_same_array_and_the_standard_sizes(tmp_path: Path, axes: str) -> None:
    array = np.random.default_rng(0).random((2, 3, 5, 7)[-len(axes) :]).astype("float32")
    path = write_ome_tiff(tmp_path / "a.ome.tif", array, axes, pixel_size_um=(0.5, 0.25))
    with tifffile.TiffFile(path) as tiff:
        assert tiff.is_ome
        assert tiff.series[0].axes == axes.replace("F", "Z")
        np.testing.assert_array_equal(tiff.asarray(), array)
        pixels = tifffile.xml2dict(tiff.ome_metadata or "")["OME"]["Image"]["Pixels"]
    assert (pixels["PhysicalSizeY"], pixels["PhysicalSizeX"]) == (0.5, 0.25)


def test_ome_xml_obeys_the_schema_where_it_can_be_checked(tmp_path: Path) -> None:
    path = write_ome_tiff(
        tmp_path / "a.ome.tif",
        np.zeros((3, 2, 4, 4), "f4"),
        "TCYX",
        names=("a", "b"),
        hours=(0, 1, 3),
        metadata={"k": 1},
    )
    with tifffile.TiffFile(path) as tiff:
        assert tifffile.xml2dict(tiff.ome_metadata or "")["OME"]["Image"]["Pixels"]["Plane"][2]["DeltaT"] == 1


def test_planes_are_streamed(tmp_path: Path) -> None:
    path = tmp_path / "maps.ome.tif"
    frames = np.random.default_rng(1).random((4, 3, 8, 9), "float32")
    with OmeTiffStackWriter(path, frames.shape, "float32", "TCYX", names=("SA1", "SA2", "CA1")) as stack:
        for frame in frames[:2]:
            stack.write(frame)
        for plane in frames[2:].reshape(-1, 8, 9):
            stack.write(plane)
        assert not path.exists()
    np.testing.assert_array_equal(read_ome_tiff(path).data, frames)


class Stop(Exception):
    """Somebody pressed Cancel."""


def stop_after_one_plane(path: Path) -> None:
    with OmeTiffStackWriter(path, (3, 4, 4), "uint8", "TYX") as stack:
        stack.write(np.zeros((4, 4)))
        raise Stop


def write_planes(path: Path, n: int) -> None:
    with OmeTiffStackWriter(path, (3, 4, 4), "uint8", "TYX") as stack:
        for _ in range(n):
            stack.write(np.zeros((4, 4)))


@pytest.mark.parametrize("before", [None, b"what was there"])
def test_nothing_half_written_stays(tmp_path: Path, before: bytes | None) -> None:
    path = tmp_path / "a.ome.tif"
    if before is not None:
        path.write_bytes(before)
    with pytest.raises(Stop):
        stop_after_one_plane(path)
    with pytest.raises(ValueError, match="1 of 3 planes"):
        write_planes(path, 1)
    with pytest.raises(ValueError, match="plane 4"):
        write_planes(path, 4)
    assert [file.read_bytes() for file in tmp_path.iterdir()] == ([] if before is None else [before])


@pytest.mark.parametrize(
    ("array", "axes", "about", "says"),
    [
        (np.zeros((2, 2)), "XY", {}, "axes 'XY'"),
        (np.zeros((2, 2, 2)), "YX", {}, "one letter per dimension"),
        (np.zeros((2, 2, 2)), "ZYX", {}, "of T, C, F"),
        (np.zeros((0, 2, 2)), "TYX", {}, "no pixel"),
        (np.zeros((2, 2), complex), "YX", {}, "complex128"),
        (np.array([[2**40, 1]]), "YX", {}, "1099511627776"),
        (np.zeros((2, 2, 2), "u1"), "YXS", {}, "2 color samples"),
        (np.zeros((2, 2, 2)), "TYX", {"hours": (1,)}, "1 hours"),
        (np.zeros((2, 2, 2)), "CYX", {"names": ("a",)}, "1 names"),
    ],
)
def test_what_cannot_be_written_is_said(
    tmp_path: Path, array: np.ndarray[Any, Any], axes: str, about: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        write_ome_tiff(tmp_path / "a.ome.tif", array, axes, **about)
    assert not list(tmp_path.iterdir())


def test_a_block_of_another_shape_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match=r"\(5, 4\)"),
        OmeTiffStackWriter(tmp_path / "a.tif", (4, 4), "u1", "YX") as stack,
    ):
        stack.write(np.zeros((5, 4)))


@pytest.mark.parametrize("content", [b"", b"II*\x00", b"not a tiff"])
def test_damaged_files_are_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.ome.tif"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=r"broken\.ome\.tif"):
        read_ome_tiff(path)


def test_another_programs_file_is_left_to_read_image(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.ome.tif", np.zeros((4, 4), "u1"))
    with pytest.raises(ImageError, match="read_image"):
        read_ome_tiff(tmp_path / "a.ome.tif")


def test_a_written_image_opens_as_an_embryo(tmp_path: Path) -> None:
    stack = np.random.default_rng(2).integers(0, 255, (3, 2, 6, 5)).astype("uint16")
    path = write_ome_tiff(
        tmp_path / "e.ome.tif", stack, "TFYX", pixel_size_um=(0.3, 0.3), hours=(5.0, 6.0, 9.0), focus_um=(-15.0, 0.0)
    )
    image = read_image(path)
    np.testing.assert_array_equal(image.data, stack)
    assert (image.axes, image.name, image.pixel_size_um) == ("TFYX", "e", (0.3, 0.3))
    assert (image.hours, image.focus_um) == ((5.0, 6.0, 9.0), (-15.0, 0.0))
    assert pickle.loads(pickle.dumps(image.data)).compute().shape == stack.shape


def test_table(tmp_path: Path) -> None:
    rows = [{"name": "a, b", "area": 1.5, "um2": None}, {"name": "c", "area": float("nan"), "hours": 2}]
    path = write_csv_atomic(tmp_path / "m.csv", rows)
    with path.open(newline="", encoding="utf-8") as file:
        assert list(csv.DictReader(file)) == [
            {"name": "a, b", "area": "1.5", "um2": "", "hours": ""},
            {"name": "c", "area": "", "um2": "", "hours": "2"},
        ]


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 3), (4, 5, 4)])
def test_picture(tmp_path: Path, shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(3).integers(0, 255, shape).astype("uint8")
    with Image.open(write_png(tmp_path / "p.png", pixels)) as image:
        np.testing.assert_array_equal(np.array(image), pixels)


def test_a_picture_of_other_values_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="float64"):
        write_png(tmp_path / "p.png", np.zeros((4, 4)))  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())
