"""Gray values are those that are shown, or the file is refused by name; against Pillow and imagecodecs."""

import io
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from PIL import Image, ImageOps

from napari_embryo.io import (
    ImageError,
    OpenChoices,
    open_plan,
    palette_indices,
    part_of,
    plan_file,
    plan_folder,
    read_image,
    upright_picture,
)

Array = npt.NDArray[Any]

HW = (24, 40)


def picture(dtype: str = "uint8", shape: tuple[int, ...] = HW, seed: int = 0) -> Array:
    """A drawn ramp with noise, so that compression has something to do."""
    ramp = np.linspace(0, 0.7, shape[1] if len(shape) > 1 else 1)
    ramp = ramp[None, :, None] if len(shape) == 3 else ramp
    values = ramp + 0.3 * np.random.default_rng(seed).random(shape)
    return (values if dtype.startswith("f") else values * np.iinfo(dtype).max).astype(dtype)


def by_pillow(path: Path) -> Array:
    """What Pillow shows, as gray values."""
    with Image.open(path) as image:
        image.load()
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I;16"):
            return np.array(upright)
        return np.array(upright.convert("L" if upright.mode in ("1", "L", "LA") else "RGB").convert("L"))


# --- photometric interpretation ---------------------------------------------------------------------------------------


def white_is_zero_1_bit(path: Path) -> None:
    tifffile.imwrite(path, picture() > 99, photometric="miniswhite")


def cmyk(path: Path) -> None:
    Image.fromarray(picture(shape=(*HW, 4)), "CMYK").save(path)


def ycbcr(path: Path) -> None:
    samples = np.array(Image.fromarray(picture(shape=(*HW, 3))).convert("YCbCr"))
    tifffile.imwrite(path, samples, photometric="ycbcr", metadata=None)


def palette(order: Array, name: str = "palette") -> Callable[[Path], None]:
    def write(path: Path) -> None:
        tifffile.imwrite(path, picture(), photometric="palette", colormap=order.astype("u2"))

    return write


RAMP = np.arange(256) * 257
MIXED = np.random.default_rng(1).permutation(256) * 257

SHOWN: list[tuple[str, Callable[[Path], object]]] = [
    ("black_is_zero.tif", lambda p: tifffile.imwrite(p, picture())),
    ("white_is_zero.tif", lambda p: tifffile.imwrite(p, 255 - picture(), photometric="miniswhite")),
    ("white_is_zero_deflate.tif", lambda p: tifffile.imwrite(p, picture(), photometric="miniswhite", compression=8)),
    ("white_is_zero_1_bit.tif", white_is_zero_1_bit),
    ("one_bit.tif", lambda p: tifffile.imwrite(p, picture() > 99)),
    ("palette_turned.tif", palette(np.stack([RAMP[::-1]] * 3))),
    ("palette_mixed.tif", palette(np.stack([MIXED] * 3))),
    ("palette_colors.tif", palette(np.stack([RAMP, MIXED, RAMP[::-1]]))),
    ("cmyk.tif", cmyk),
    ("cmyk.jpg", lambda p: Image.fromarray(picture(shape=(*HW, 4)), "CMYK").save(p)),
    ("ycbcr.tif", ycbcr),
    ("rgb.tif", lambda p: tifffile.imwrite(p, picture(shape=(*HW, 3)))),
    ("rgba.tif", lambda p: tifffile.imwrite(p, picture(shape=(*HW, 4)), photometric="rgb", extrasamples=[2])),
    ("rgba.png", lambda p: Image.fromarray(picture(shape=(*HW, 4))).save(p)),
    ("gray_alpha.png", lambda p: Image.fromarray(picture(shape=(*HW, 2)), "LA").save(p)),
    ("planar.tif", lambda p: tifffile.imwrite(p, picture(shape=(3, *HW)), photometric="rgb", planarconfig="separate")),
    ("sixteen.tif", lambda p: tifffile.imwrite(p, picture("uint16"))),
    ("one_bit.png", lambda p: Image.fromarray(picture()).convert("1").save(p)),
    ("palette.png", lambda p: Image.fromarray(picture(shape=(*HW, 3))).quantize(16).save(p)),
    ("palette.gif", lambda p: Image.fromarray(picture(shape=(*HW, 3))).quantize(16).save(p)),
    ("palette.bmp", lambda p: Image.fromarray(picture()).convert("P").save(p)),
    ("tiled.tif", lambda p: tifffile.imwrite(p, picture(), tile=(16, 16), compression=8)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "write"), SHOWN, ids=[name for name, _ in SHOWN])
def test_what_is_shown(tmp_path: Path, name: str, write: Callable[[Path], object]) -> None:
    write(tmp_path / name)
    image = read_image(tmp_path / name)
    tolerance = 1 if name == "ycbcr.tif" else 0
    np.testing.assert_allclose(np.asarray(image.data).astype(int), by_pillow(tmp_path / name), atol=tolerance)


def test_white_is_zero_of_16_bits(tmp_path: Path) -> None:
    """Pillow does not turn it; what is written 65535 is black."""
    stored = picture("uint16")
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="miniswhite")
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").data, 65535 - stored)


@pytest.mark.parametrize("bits", [2, 4])
def test_few_bits_have_the_whole_range(tmp_path: Path, bits: int) -> None:
    stored = picture() >> (8 - bits)
    rows = np.concatenate([(stored[..., None] >> np.arange(bits - 1, -1, -1) & 1)], -1).reshape(HW[0], -1)
    Image.fromarray(stored).save(tmp_path / "a.png")
    packed(tmp_path / "a.tif", np.packbits(rows.astype(bool), axis=1).tobytes(), bits)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").data, by_pillow(tmp_path / "a.tif"))


def packed(path: Path, data: bytes, bits: int) -> None:
    """A TIFF whose samples are stored without gaps."""
    tags = [(256, 4, HW[1]), (257, 4, HW[0]), (258, 3, bits), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1),
            (278, 4, HW[0]), (279, 4, len(data))]  # fmt: skip
    entries = b"".join(
        struct.pack("<HHI", tag, kind, 1) + (struct.pack("<I", v) if kind == 4 else struct.pack("<HH", v, 0))
        for tag, kind, v in tags
    )
    path.write_bytes(
        b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags)) + entries + bytes(4)
    )


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_packed_samples(tmp_path: Path, bits: int) -> None:
    imagecodecs = pytest.importorskip("imagecodecs")
    stored = picture("uint16") >> (16 - bits)
    packed(tmp_path / "a.tif", imagecodecs.packints_encode(stored, bits), bits)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").data, stored)


@pytest.mark.parametrize(
    ("dtype", "shown"), [("int8", "int8"), ("float16", "float32"), ("float64", "float64"), ("int16", "int16")]
)
def test_other_types(tmp_path: Path, dtype: str, shown: str) -> None:
    stored = picture(dtype)
    tifffile.imwrite(tmp_path / "a.tif", stored)
    data = read_image(tmp_path / "a.tif").data
    assert data.dtype == shown
    np.testing.assert_array_equal(data, stored)


def test_samples_that_are_no_colors_are_channels(tmp_path: Path) -> None:
    stored = picture(shape=(*HW, 3))
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="minisblack", planarconfig="contig", metadata=None)
    images = open_plan(plan_file(tmp_path / "a.tif"))
    assert [image.name for image in images] == ["a channel 1", "a channel 2", "a channel 3"]
    np.testing.assert_array_equal(np.stack([image.data for image in images], -1), stored)


def test_color_of_16_bits_in_a_png_is_said(tmp_path: Path) -> None:
    imagecodecs = pytest.importorskip("imagecodecs")
    color = picture("uint16", (*HW, 3))
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(color))
    image = read_image(tmp_path / "a.png")
    np.testing.assert_allclose(image.data, (color / 257) @ [0.299, 0.587, 0.114], atol=1.5)
    assert any("read with 8 bits" in note for note in image.metadata["notes"])


REFUSED: list[tuple[str, Callable[[Path], object], str]] = [
    ("cielab.tif", lambda p: tifffile.imwrite(p, picture(shape=(*HW, 3)), photometric="cielab"), "CIELAB"),
    ("cfa.tif", lambda p: tifffile.imwrite(p, picture(), photometric="cfa"), "CFA"),
    ("float.tif", lambda p: tifffile.imwrite(p, picture("float32"), photometric="miniswhite"), "0 is white"),
    ("int16.tif", lambda p: tifffile.imwrite(p, picture("int16"), photometric="miniswhite"), "0 is white"),
    ("complex.tif", lambda p: tifffile.imwrite(p, picture("float32").astype("c8")), "real numbers"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "write", "why"), REFUSED, ids=[name for name, _, _ in REFUSED])
def test_what_cannot_be_shown_is_refused_by_name(
    tmp_path: Path, name: str, write: Callable[[Path], object], why: str
) -> None:
    write(tmp_path / name)
    with pytest.raises(ImageError, match=why):
        read_image(tmp_path / name)


def test_indices_of_label_pictures(tmp_path: Path) -> None:
    labels = (picture() // 64).astype(np.uint8)
    colors = np.random.default_rng(0).integers(0, 65535, (3, 256), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", labels, photometric="palette", colormap=colors)
    image = Image.fromarray(labels, "P")
    image.putpalette((colors.T // 256).astype(np.uint8).tobytes())
    image.save(tmp_path / "a.png")
    for name in ("a.tif", "a.png"):
        np.testing.assert_array_equal(palette_indices(tmp_path / name), labels)
    Image.fromarray(labels).save(tmp_path / "gray.png")
    assert palette_indices(tmp_path / "gray.png") is None


# --- orientation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "color.jpg", "stack.tif", "deflate.tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_picture_is_upright(tmp_path: Path, name: str, orientation: int) -> None:
    path, stored = tmp_path / name, picture(shape=(*HW, 3) if name == "color.jpg" else HW)
    if path.suffix == ".tif":
        n_pages = 2 if name == "stack.tif" else 1
        tag = [(274, 3, 1, orientation, True)]
        compression = 8 if name == "deflate.tif" else None
        with tifffile.TiffWriter(path) as tiff:
            for _ in range(n_pages):
                tiff.write(stored, extratags=tag, metadata=None, contiguous=False, compression=compression)
    else:
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(stored).save(path, exif=exif, quality=95)
    image = read_image(path)
    data = np.asarray(image.data)
    expected = by_pillow(path) if path.suffix != ".tif" else turned_by_pillow(stored, orientation)
    np.testing.assert_array_equal(data[0] if name == "stack.tif" else data, expected)
    assert any("rotated upright" in note for note in image.metadata.get("notes", ())) == (orientation > 1)
    if path.suffix != ".tif":
        with Image.open(path) as opened:
            np.testing.assert_array_equal(upright_picture(opened), image.metadata.get("rgb", data))


def turned_by_pillow(stored: Array, orientation: int) -> Array:
    """Through a PNG: Pillow turns uncompressed TIFFs twice."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = io.BytesIO()
    Image.fromarray(stored).save(content, "PNG", exif=exif)
    return np.array(ImageOps.exif_transpose(Image.open(content)))


# --- compression, with and without imagecodecs ------------------------------------------------------------------------

LOSSLESS = ("deflate", "adobe_deflate", "lzw", "packbits", "lzma", "zstd", "jpeg2000")
TYPES = ("uint8", "uint16", "float32")


def compressed(folder: Path) -> dict[str, Array]:
    """Files by name, with what each must show."""
    pytest.importorskip("imagecodecs")
    files: dict[str, Array] = {}
    for codec in LOSSLESS:
        for dtype in TYPES if codec != "jpeg2000" else TYPES[:2]:
            stored = picture(dtype)
            name = f"{codec}_{dtype}.tif"
            codes = {"deflate": 32946, "adobe_deflate": 8, "jpeg2000": 34712}
            args = {"level": 0, "reversible": True} if codec == "jpeg2000" else None
            tifffile.imwrite(folder / name, stored, compression=codes.get(codec, codec), compressionargs=args)
            files[name] = stored
    tifffile.imwrite(folder / "jpeg_uint8.tif", picture(), compression="jpeg")
    files["jpeg_uint8.tif"] = by_pillow(folder / "jpeg_uint8.tif")
    return files


def test_compressed(tmp_path: Path) -> None:
    for name, shown in compressed(tmp_path).items():
        np.testing.assert_array_equal(read_image(tmp_path / name).data, shown, err_msg=name)


WITHOUT = """
import sys
sys.modules["imagecodecs"] = None
from pathlib import Path
import numpy as np
from napari_embryo.io import ImageError, read_image
for path in sorted(Path(sys.argv[1]).glob("*.tif")):
    try:
        np.save(path.with_suffix(".npy"), read_image(path).data)
    except ImageError as error:
        path.with_suffix(".txt").write_text(str(error))
"""


def test_compressed_without_imagecodecs(tmp_path: Path) -> None:
    files = compressed(tmp_path)
    subprocess.run([sys.executable, "-c", WITHOUT, str(tmp_path)], check=True)
    refused = {path.stem: path.read_text() for path in tmp_path.glob("*.txt")}
    for name, shown in files.items():
        if Path(name).stem not in refused:
            np.testing.assert_array_equal(np.load((tmp_path / name).with_suffix(".npy")), shown, err_msg=name)
    assert {name.rpartition("_")[0] for name in refused} <= {"lzw", "zstd", "jpeg2000"}
    assert not {"lzw_uint8", "zstd_uint8", "deflate_float32", "packbits_uint16"} & set(refused)
    for name, text in refused.items():
        codec = name.rpartition("_")[0].upper()
        assert codec in text or "imagecodecs" in text
        assert "napari-embryo[formats]" in text


# --- series, thumbnails, pyramids -------------------------------------------------------------------------------------


def test_every_series_is_an_image(tmp_path: Path) -> None:
    first, second = picture(), picture("uint16", (30, 20))
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        tiff.write(first, metadata=None)
        tiff.write(second, metadata=None)
    images = open_plan(plan_file(tmp_path / "a.tif"))
    assert [image.name for image in images] == ["a series 1", "a series 2"]
    for image, stored in zip(images, (first, second), strict=True):
        np.testing.assert_array_equal(image.data, stored)


def test_every_image_of_an_ome_tiff_has_its_own_size_and_name(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as tiff:
        for name, size in (("left", 0.5), ("right", 0.25)):
            about = {"axes": "YX", "Name": name, "PhysicalSizeX": size, "PhysicalSizeY": size}
            tiff.write(picture(seed=int(size * 4)), metadata=about)
    images = open_plan(plan_file(tmp_path / "a.ome.tif"))
    assert [(image.name, image.pixel_size_um) for image in images] == [
        ("a left", (0.5, 0.5)),
        ("a right", (0.25, 0.25)),
    ]


@pytest.mark.parametrize("is_marked", [True, False])
def test_thumbnails_are_never_opened(tmp_path: Path, is_marked: bool) -> None:
    stored = picture()
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        for page in (stored[::2, ::2], stored):
            small = page is not stored
            tiff.write(page, metadata=None, subfiletype=1 if small and is_marked else 0)
    image = read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(image.data, stored)
    assert any("thumbnails in the file are not opened (20 x 12)" in note for note in image.metadata["notes"])


@pytest.mark.parametrize("in_pages", [True, False])
def test_a_pyramid_is_read_at_full_size(tmp_path: Path, in_pages: bool) -> None:
    stored = picture(shape=(64, 96))
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        tiff.write(stored, metadata=None, subifds=0 if in_pages else 2)
        for step in (2, 4):
            tiff.write(stored[::step, ::step], metadata=None, subfiletype=1)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").data, stored)


def multi_file(folder: Path) -> Array:
    """Two time points of one OME-TIFF in two files."""
    frames = picture(shape=(2, *HW))
    ome = (
        '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
        'UUID="urn:uuid:{uuid}"><Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" '
        f'SizeX="{HW[1]}" SizeY="{HW[0]}" SizeZ="1" SizeC="1" SizeT="2"><Channel ID="Channel:0:0" SamplesPerPixel="1"/>'
        "{data}</Pixels></Image></OME>"
    )
    data = "".join(
        f'<TiffData FirstT="{t}" IFD="0" PlaneCount="1">'
        f'<UUID FileName="x_{t}.ome.tif">urn:uuid:{uuid(t)}</UUID></TiffData>'
        for t in range(2)
    )
    for t in range(2):
        about = ome.format(uuid=uuid(t), data=data)
        tifffile.imwrite(folder / f"x_{t}.ome.tif", frames[t], description=about, metadata=None)
    return frames


def uuid(number: int) -> str:
    return f"00000000-0000-0000-0000-00000000000{number}"


def test_a_multi_file_ome_tiff_is_opened_once(tmp_path: Path) -> None:
    frames = multi_file(tmp_path)
    plan = plan_folder(tmp_path)
    (image,) = open_plan(plan)
    assert image.axes == "TYX"
    np.testing.assert_array_equal(np.asarray(image.data), frames)
    assert any("opened as a whole" in note for note in plan.said)


def test_a_missing_part_is_said(tmp_path: Path) -> None:
    multi_file(tmp_path)
    (tmp_path / "x_1.ome.tif").unlink()
    image = read_image(tmp_path / "x_0.ome.tif")
    np.asarray(image.data[0])
    assert any("1 of its 2 pages are in files that are not here" in note for note in image.metadata["notes"])
    with pytest.raises(ImageError, match="page 2 is missing"):
        np.asarray(image.data[1])


# --- pixel sizes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unit", "per_unit", "expected"),
    [
        ("inch", 300, None),
        ("inch", 96, None),
        ("cm", 20000, 0.5),
        ("nm", 0.002, 0.5),
        ("pixel", 1, None),
        ("um", 2, 0.5),
    ],
)
def test_sizes_of_imagej(tmp_path: Path, unit: str, per_unit: float, expected: float | None) -> None:
    tifffile.imwrite(tmp_path / "a.tif", picture(), imagej=True, resolution=(per_unit,) * 2, metadata={"unit": unit})
    plan = plan_file(tmp_path / "a.tif")
    (image,) = open_plan(plan)
    assert image.pixel_size_um == (None if expected is None else pytest.approx((expected, expected), rel=1e-3))
    assert bool(plan.said) == (unit == "inch")
    (given,) = open_plan(plan.edited(OpenChoices(pixel_size_um=(0.3, 0.3))))
    assert given.pixel_size_um == (0.3, 0.3)
    assert any("0.3 um/px as given is used" in note for note in given.metadata.get("notes", ())) == (unit != "pixel")


def test_a_turned_picture_has_its_sizes_turned(tmp_path: Path) -> None:
    tag = [(274, 3, 1, 6, True)]
    tifffile.imwrite(tmp_path / "a.tif", picture(), resolution=(20000, 10000), resolutionunit=3, extratags=tag)
    assert read_image(tmp_path / "a.tif").pixel_size_um == pytest.approx((0.5, 1.0))


# --- bombs ------------------------------------------------------------------------------------------------------------


def test_a_part_that_decompresses_to_too_much_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", picture(shape=(2000, 2000)), compression=8, rowsperstrip=2000)
    bomb = zlib.compress(bytes(400 * 2**20), 9)
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        tags = tiff.pages.first.tags
        place, count = tags["StripOffsets"].valueoffset, tags["StripByteCounts"].valueoffset
    content = bytearray((tmp_path / "a.tif").read_bytes())
    struct.pack_into("<I", content, place, len(content))
    struct.pack_into("<I", content, count, len(bomb))
    (tmp_path / "a.tif").write_bytes(bytes(content) + bomb)
    with pytest.raises(ImageError, match="decompresses to far more"):
        read_image(tmp_path / "a.tif")


def huge_png(path: Path) -> None:
    header = struct.pack(">IIBBBBB", 10**9, 10**9, 8, 0, 0, 0, 0)
    chunk = b"IHDR" + header
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)))


def huge_tiff(path: Path) -> None:
    tifffile.imwrite(path, picture())
    content = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tiff:
        for name in ("ImageWidth", "ImageLength"):
            struct.pack_into("<I", content, tiff.pages.first.tags[name].valueoffset, 10**9)
    path.write_bytes(content)


def huge_npy(path: Path) -> None:
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (10**9, 10**9)})


@pytest.mark.parametrize(("name", "write"), [("a.png", huge_png), ("a.tif", huge_tiff), ("a.npy", huge_npy)])
def test_sizes_that_no_picture_has(tmp_path: Path, name: str, write: Callable[[Path], None]) -> None:
    write(tmp_path / name)
    with pytest.raises(ImageError, match=name):
        read_image(tmp_path / name)


def test_the_parts_of_an_ome_tiff_know_the_first(tmp_path: Path) -> None:
    multi_file(tmp_path)
    assert part_of(plan_file(tmp_path / "x_0.ome.tif")) is None
    assert part_of(plan_file(tmp_path / "x_1.ome.tif")) == tmp_path / "x_0.ome.tif"
