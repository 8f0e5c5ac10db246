"""Files of microscope makers, written here plane by plane: Zeiss CZI, Nikon ND2, Leica LIF."""

import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_embryo.io import ImageError, open_plan, plan_file, read_image

czi = pytest.importorskip("pylibCZIrw.czi")
pytest.importorskip("nd2")
pytest.importorskip("liffile")

HW = (24, 32)
N_FRAMES, N_PLANES, N_CHANNELS = 3, 4, 2


def plane(series: int, t: int, z: int, c: int) -> Any:
    """A picture that says where it belongs, and which way is up."""
    pixels = np.full(HW, 1000 * series + 100 * t + 10 * z + c, np.uint16)
    pixels[0] = np.arange(HW[1])
    return pixels


def expected(series: int, c: int) -> Any:
    return np.array([[plane(series, t, z, c) for z in range(N_PLANES)] for t in range(N_FRAMES)])


# --- Zeiss ----------------------------------------------------------------------------------------------------------


def write_czi(path: Path) -> None:
    """Two scenes; a pixel of 0.6 x 0.5 um, planes every 3 um, a frame every 900 s."""
    with czi.create_czi(str(path)) as file:
        for series in range(2):
            for t, z, c in np.ndindex(N_FRAMES, N_PLANES, N_CHANNELS):
                where = {"T": t, "Z": z, "C": c}
                file.write(plane(series, t, z, c)[..., None], plane=where, scene=series, location=(100 * series, 7))
        names = {0: "TL", 1: "DAPI"}
        file.write_metadata("embryo", channel_names=names, scale_x=0.5e-6, scale_y=0.6e-6, scale_z=3e-6)
    with czi.edit_czi(str(path)) as editor:
        text = editor.read_metadata_xml()
        interval = "<T><Positions><Interval><Increment>900</Increment></Interval></Positions></T>"
        with editor.edit_session() as builder:
            builder.set_xml(text.replace("</Dimensions>", interval + "</Dimensions>", 1))


# --- Leica ----------------------------------------------------------------------------------------------------------


def write_lif(path: Path) -> None:
    """Two images, as LAS X stores them: each plane of each channel, then the next plane, then the next frame."""
    blocks = [
        np.array([
            [[plane(series, t, z, c) for c in range(N_CHANNELS)] for z in range(N_PLANES)] for t in range(N_FRAMES)
        ]).astype("<u2")
        for series in range(2)
    ]  # fmt: skip
    elements = "".join(_lif_element(series, block.nbytes) for series, block in enumerate(blocks))
    xml = (
        f'<LMSDataContainerHeader Version="2"><Element Name="embryo"><Children>{elements}</Children></Element>'
        "</LMSDataContainerHeader>"
    )
    with path.open("wb") as file:
        text = xml.encode("utf-16-le")
        file.write(struct.pack("<IIBI", 0x70, len(text) + 5, 0x2A, len(xml)) + text)
        for series, block in enumerate(blocks):
            name = f"MemBlock_{series}"
            file.write(struct.pack("<IIBQBI", 0x70, 0, 0x2A, block.nbytes, 0x2A, len(name)))
            file.write(name.encode("utf-16-le") + block.tobytes())


def _lif_element(series: int, size: int) -> str:
    height, width = HW
    line, one = 2 * width, 2 * width * height
    channels = "".join(
        f'<ChannelDescription DataType="0" ChannelTag="0" Resolution="16" NameOfMeasuredQuantity="" Min="0" Max="1" '
        f'Unit="" LUTName="Gray" IsLUTInverted="0" BytesInc="{c * one}" BitInc="0"/>'
        for c in range(N_CHANNELS)
    )
    axes = (
        (1, width, 0.5e-6 * (width - 1), "m", 2), (2, height, 0.6e-6 * (height - 1), "m", line),
        (3, N_PLANES, 3e-6 * (N_PLANES - 1), "m", one * N_CHANNELS),
        (4, N_FRAMES, 900 * (N_FRAMES - 1), "s", one * N_CHANNELS * N_PLANES),
    )  # fmt: skip
    dimensions = "".join(
        f'<DimensionDescription DimID="{number}" NumberOfElements="{count}" Origin="0" Length="{length}" '
        f'Unit="{unit}" BytesInc="{step}" BitInc="0"/>'
        for number, count, length, unit, step in axes
    )
    return (
        f'<Element Name="Series{series + 1}"><Data><Image><ImageDescription><Channels>{channels}</Channels>'
        f"<Dimensions>{dimensions}</Dimensions></ImageDescription></Image></Data>"
        f'<Memory Size="{size}" MemoryBlockID="MemBlock_{series}"/><Children/></Element>'
    )


# --- Nikon ----------------------------------------------------------------------------------------------------------

INTEGER, NUMBER, TEXT, LEVEL, FLAG = 3, 6, 8, 11, 1


def _variant(name: str, value: Any) -> bytes:
    """One entry of Nikon's "lite variant": type, name in UTF-16, value."""
    kind = {bool: FLAG, int: INTEGER, float: NUMBER, str: TEXT, dict: LEVEL}[type(value)]
    head = struct.pack("<BB", kind, len(name) + 1) + f"{name}\0".encode("utf-16-le")
    if isinstance(value, dict):
        inner = b"".join(_variant(key, each) for key, each in value.items())
        return head + struct.pack("<IQ", len(value), len(head) + 12 + len(inner)) + inner + bytes(8 * len(value))
    packed = {FLAG: "<B", INTEGER: "<I", NUMBER: "<d"}
    return head + (f"{value}\0".encode("utf-16-le") if kind == TEXT else struct.pack(packed[kind], value))


def _loops(n_positions: int) -> dict[str, Any]:
    """Frames in time, at each all positions, at each all planes."""
    points = {
        f"i{i:010}": {"dPosX": 0.0, "dPosY": 0.0, "dPosZ": 0.0, "dPosName": f"well {i}"} for i in range(n_positions)
    }
    stack = {"eType": 4, "uLoopPars": {"uiCount": N_PLANES, "dZStep": 3.0, "dZLow": 0.0, "dZHigh": 9.0}}
    wells = {
        "eType": 2,
        "uLoopPars": {"uiCount": n_positions, "Points": points},
        "ppNextLevelEx": {"i0000000000": stack},
    }
    time = {"uiCount": N_FRAMES, "dStart": 0.0, "dPeriod": 9e5, "dDuration": 0.0}
    return {"SLxExperiment": {"eType": 1, "uLoopPars": time, "ppNextLevelEx": {"i0000000000": wells}}}


def write_nd2(path: Path, *, is_calibrated: bool = True, n_lost: int = 0) -> None:
    """Two positions; frames at 0, 900 and 2700 s."""
    frames = [
        np.stack([plane(p, t, z, c) for c in range(N_CHANNELS)], axis=-1)
        for t in range(N_FRAMES) for p in range(2) for z in range(N_PLANES)
    ]  # fmt: skip
    times = [seconds * 1000.0 for seconds in (0, 900, 2700) for _ in range(2 * N_PLANES)]
    planes = {
        f"a{c}": {"sDescription": name, "uiCompCount": 1, "pFluorescentProbe": {"m_sName": "none"}}
        for c, name in enumerate(("TL", "DAPI"))
    }
    attributes = {
        "uiWidth": HW[1], "uiWidthBytes": 2 * N_CHANNELS * HW[1], "uiHeight": HW[0], "uiComp": N_CHANNELS,
        "uiBpcInMemory": 16, "uiBpcSignificant": 16, "uiSequenceCount": len(frames) - n_lost, "eCompression": 2,
    }  # fmt: skip
    picture = {
        "bCalibrated": is_calibrated, "dCalibration": 0.5, "dTimeAbsolute": 2459000.0,
        "sPicturePlanes": {"uiCount": N_CHANNELS, "sPlaneNew": planes},
    }  # fmt: skip
    chunks = {
        "ImageAttributesLV!": _variant("SLxImageAttributes", attributes),
        "ImageMetadataSeqLV|0!": _variant("SLxPictureMetadata", picture),
        "ImageMetadataLV!": b"".join(_variant(*item) for item in _loops(2).items()),
        "CustomData|AcqTimesCache!": np.array(times).tobytes(),
    } | {f"ImageDataSeq|{i}!": bytes(8) + frame.tobytes() for i, frame in enumerate(frames[: len(frames) - n_lost])}
    _write_chunks(path, chunks)


def _write_chunks(path: Path, chunks: dict[str, bytes]) -> None:
    table = b""
    with path.open("wb") as file:
        file.write(_chunk("ND2 FILE SIGNATURE CHUNK NAME01!", b"Ver3.0".ljust(64, b"\0"), 32))
        for name, data in chunks.items():
            table += name.encode() + struct.pack("<QQ", file.tell(), len(data))
            file.write(_chunk(name, data, 4096 - 24))
        start = file.tell()
        end = b"ND2 CHUNK MAP SIGNATURE 0000001!" + struct.pack("<Q", start)
        file.write(_chunk("ND2 FILEMAP SIGNATURE NAME 0001!", table + end, 32))


def _chunk(name: str, data: bytes, name_length: int) -> bytes:
    return struct.pack("<IIQ", 0x0ABECEDA, name_length, len(data)) + name.encode().ljust(name_length, b"\0") + data


# --- all ------------------------------------------------------------------------------------------------------------

WRITERS: dict[str, tuple[Callable[[Path], None], float, tuple[float, float, float], list[str]]] = {
    "czi": (write_czi, 0.6, (0, 0.25, 0.5), ["scene 1", "scene 2"]),
    "lif": (write_lif, 0.6, (0, 0.25, 0.5), ["Series1", "Series2"]),
    "nd2": (write_nd2, 0.5, (0, 0.25, 0.75), ["position well 0", "position well 1"]),
}  # fmt: skip


@pytest.fixture(params=WRITERS)
def vendor(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / f"embryo.{request.param}"
    WRITERS[request.param][0](path)
    return path


def test_every_series_channel_frame_and_plane_is_where_it_belongs(vendor: Path) -> None:
    images = open_plan(plan_file(vendor))
    assert [image.axes for image in images] == ["TFYX"] * 4
    for number, image in enumerate(images):
        assert np.array_equal(np.asarray(image.data), expected(*divmod(number, 2)))


def test_sizes_hours_and_names_are_those_of_the_file(vendor: Path) -> None:
    _, height, hours, titles = WRITERS[vendor.suffix[1:]]
    plan = plan_file(vendor)
    images = open_plan(plan)
    for image in images:
        assert image.pixel_size_um == pytest.approx((height, 0.5))
        assert image.hours == pytest.approx(hours)
        assert image.focus_um == pytest.approx((0, 3, 6, 9))
    channels = ("channel 1", "channel 2") if vendor.suffix == ".lif" else ("TL", "DAPI")
    assert [image.name for image in images] == [f"embryo {title} {each}" for title in titles for each in channels]


def test_planes_are_read_when_they_are_needed(vendor: Path) -> None:
    image = open_plan(plan_file(vendor))[0]
    vendor.unlink()  # what was read before would still be there
    with pytest.raises(ImageError):
        image.data.compute()


@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.9, 0.999])
def test_cut_off_files_are_refused_by_name(vendor: Path, kept: float) -> None:
    whole = vendor.read_bytes()
    vendor.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(ImageError, match=vendor.name):
        [image.data.compute() for image in open_plan(plan_file(vendor))]


@pytest.mark.parametrize(("suffix", "module"), [("czi", "pylibCZIrw.czi"), ("nd2", "nd2"), ("lif", "liffile")])
def test_a_missing_library_is_named_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    path = tmp_path / f"embryo.{suffix}"
    path.write_bytes(b"anything")
    with pytest.raises(ImageError, match=r"pip install 'napari-embryo\[formats\]'"):
        plan_file(path)


def test_color_of_zeiss_is_rgb(tmp_path: Path) -> None:
    path = tmp_path / "embryo.czi"
    with czi.create_czi(str(path)) as file:
        file.write(np.full((*HW, 3), (10, 20, 30), np.uint8))  # blue, green, red
    image = read_image(path)
    assert image.metadata["rgb"][5, 5].tolist() == [30, 20, 10]
    assert int(image.data[5, 5]) == round(0.299 * 30 + 0.587 * 20 + 0.114 * 10)


def test_tiles_of_zeiss_are_stitched_and_pyramids_read_at_full_size(tmp_path: Path) -> None:
    path = tmp_path / "embryo.czi"
    left, right = plane(0, 0, 0, 0), plane(1, 0, 0, 0)
    with czi.create_czi(str(path)) as file:
        file.write(left[..., None], location=(-5, 3))
        file.write(right[..., None], location=(-5 + HW[1], 3))
    assert np.array_equal(read_image(path).data, np.hstack([left, right]))


def test_scenes_of_zeiss_may_differ_in_size_and_length_and_lost_planes_are_told(tmp_path: Path) -> None:
    path = tmp_path / "embryo.czi"
    with czi.create_czi(str(path)) as file:
        for t in range(3):
            file.write(plane(0, t, 0, 0)[..., None], plane={"T": t}, scene=0, location=(0, 0))
        file.write(plane(1, 0, 0, 0)[:10, :12, None], scene=1, location=(100, 0))
        for t, z in ((0, 0), (0, 1), (1, 0)):
            file.write(plane(2, t, z, 0)[..., None], plane={"T": t, "Z": z}, scene=2, location=(200, 0))
    images = open_plan(plan_file(path))
    assert [(image.axes, image.shape) for image in images] == [
        ("TYX", (3, *HW)), ("YX", (10, 12)), ("TFYX", (2, 2, *HW)),
    ]  # fmt: skip
    assert "1 of its planes are not in the file and are black" in images[2].metadata["notes"]
    assert int(images[2].data[1, 0, 5, 5]) == 2100


def test_a_size_that_nikon_does_not_know_is_unknown(tmp_path: Path) -> None:
    write_nd2(tmp_path / "embryo.nd2", is_calibrated=False)
    assert open_plan(plan_file(tmp_path / "embryo.nd2"))[0].pixel_size_um is None


def test_what_nikon_did_not_record_is_told(tmp_path: Path) -> None:
    write_nd2(tmp_path / "embryo.nd2", n_lost=3)
    first, _, last, _ = open_plan(plan_file(tmp_path / "embryo.nd2"))
    assert "3 of its 12 planes were planned but not recorded: they are black" in last.metadata["notes"]
    assert "notes" not in first.metadata
