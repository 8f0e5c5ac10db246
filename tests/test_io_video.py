"""The frame asked for is the frame shown, in any order."""

import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from napari_embryo.io import ImageError, open_plan, plan_file, read_image

HEIGHT, WIDTH, N = 48, 320, 30


def picture(number: int) -> np.ndarray:
    """A bar of 8 pixels for each frame, over a ring that grows."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    gray = 150 - 60 * np.exp(-(((np.hypot(y - 30, x - 160) - 10 - number) / 7) ** 2))
    gray[:12] = np.where(x[:12] < 8 * (number + 1), 255, 0)
    return np.repeat(gray.astype("uint8")[..., None], 3, 2)


def bar(frame: Any) -> int:
    """The frame's number, as its bar says."""
    return round(float((np.asarray(frame)[5] > 128).sum()) / 8) - 1


def write(path: Path, codec: str, gop: int = 12, b_frames: int = 2, skipped: tuple[int, ...] = ()) -> Path:
    av = pytest.importorskip("av", reason="the extra 'video' is not installed")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25 if path.suffix == ".mpg" else 10)
        stream.width, stream.height, stream.bit_rate = WIDTH, HEIGHT, 2_000_000
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.gop_size, stream.codec_context.max_b_frames = gop, b_frames
        for k in (k for k in range(N) if k not in skipped):
            frame = av.VideoFrame.from_ndarray(picture(k), format="rgb24")
            frame.pts = k
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize(
    ("name", "codec", "b_frames"),
    [
        ("a.avi", "mpeg4", 2),
        ("a.avi", "libx264", 2),
        ("a.avi", "mjpeg", 0),
        ("a.mp4", "libx264", 2),
        ("a.mp4", "mpeg4", 2),
        ("a.mov", "libx264", 2),
        ("a.mkv", "libx264", 3),
        ("a.wmv", "wmv2", 0),
        ("a.mpg", "mpeg1video", 2),
    ],
)
def test_every_frame_in_any_order(tmp_path: Path, name: str, codec: str, b_frames: int) -> None:
    image = read_image(write(tmp_path / name, codec, b_frames=b_frames))
    assert (image.axes, image.shape, image.hours) == ("TYX", (N, HEIGHT, WIDTH), None)
    order = [*range(N), *range(N - 1, -1, -1), *random.Random(0).sample(range(N), N)]
    assert [bar(image.data[k]) for k in order] == order
    assert image.metadata["rgb"].shape == (N, HEIGHT, WIDTH, 3)


def test_an_avi_repeats_frames_that_it_does_not_store(tmp_path: Path) -> None:
    """As a viewer does: the frame before stays."""
    image = read_image(write(tmp_path / "a.avi", "mjpeg", b_frames=0, skipped=(4, 5, 20)))
    shown = [3 if k in (4, 5) else 19 if k == 20 else k for k in range(N)]
    assert [bar(image.data[k]) for k in range(N)] == shown
    assert any("3 frames repeat the one before" in note for note in image.metadata["notes"])


def test_a_cut_video_is_opened_as_far_as_it_goes_and_said(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mpg", "mpeg1video", b_frames=0)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    image = read_image(path)
    assert 2 < image.shape[0] < N
    for k in range(image.shape[0] - 1):
        assert bar(image.data[k]) == k


def test_animations(tmp_path: Path) -> None:
    frames = [Image.fromarray(picture(k)[..., 0]) for k in range(5)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    image = read_image(tmp_path / "a.gif")
    assert (image.axes, image.shape) == ("TYX", (5, HEIGHT, WIDTH))
    assert [bar(image.data[k]) for k in (4, 0, 3, 1, 2)] == [4, 0, 3, 1, 2]


def test_a_film_is_opened_twice_at_once(tmp_path: Path) -> None:
    plan = plan_file(write(tmp_path / "a.avi", "mpeg4"))
    (one,), (other,) = open_plan(plan), open_plan(plan)
    assert [(bar(one.data[k]), bar(other.data[N - 1 - k])) for k in range(0, N, 7)] == [
        (k, N - 1 - k) for k in range(0, N, 7)
    ]


def test_without_pyav(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / "v.avi").write_text("x")
    with pytest.raises(ImageError, match=r"napari-embryo\[video\]"):
        read_image(tmp_path / "v.avi")
