"""Damaged files of every format: a clear error or the picture, no crash, no hang, no wrong size, little memory.

``python tests/test_io_fuzz.py SUFFIX COUNT FIRST_SEED`` runs as many by itself.
"""

import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

SECONDS = 10
"""A file may take so long."""

GIGABYTES = 1
"""All files together may need so much more than the libraries."""


def gray(seed: int = 0, shape: tuple[int, ...] = (24, 40)) -> Any:
    return (np.random.default_rng(seed).random(shape) * 255).astype(np.uint8)


def pillow(**options: Any) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        frames = [Image.fromarray(gray(i)) for i in range(3)]
        more = {"save_all": True, "append_images": frames[1:]} if path.suffix == ".gif" else {}
        exif = Image.Exif()
        exif[0x0112] = 6
        frames[0].save(path, **({"exif": exif} if path.suffix in (".jpg", ".png") else {}), **more, **options)

    return write


def tiff(**options: Any) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        tifffile.imwrite(path, gray(shape=(3, 24, 40)), photometric="minisblack", **options)

    return write


def ours(path: Path) -> None:
    from napari_embryo import io

    io.write_ome_tiff(path, gray(shape=(2, 2, 24, 40)), "TCYX", kind="labels", names=("cell 1", "cell 2"))


def video(path: Path) -> None:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i in range(6):
            frame = av.VideoFrame.from_ndarray(np.repeat(gray(i, (48, 64))[..., None], 3, 2), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


FORMATS: dict[str, Callable[[Path], Any]] = {
    "png": pillow(),
    "jpg": pillow(quality=90),
    "bmp": pillow(),
    "gif": pillow(),
    "npy": lambda path: np.save(path, gray(shape=(3, 24, 40))),
    "tif": tiff(),
    "deflate.tif": tiff(compression=8),
    "lzw.tif": lambda path: Image.fromarray(gray()).save(path, compression="tiff_lzw"),
    "imagej.tif": tiff(imagej=True),
    "ome.tif": tiff(metadata={"axes": "TYX", "TimeIncrement": 3}),
    "cells.ome.tif": ours,
    "avi": video,
    "mp4": video,
}


def damaged(content: bytes, seed: int) -> bytes:
    """Some bytes of a file changed, mostly of its start and its end; or a part cut out, repeated or emptied."""
    rng = np.random.default_rng(seed)
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 6))):
        span = [len(data), min(400, len(data)), len(data)][int(rng.integers(3))]
        place = (
            int(rng.integers(span)) if rng.random() < 0.8 else len(data) - 1 - int(rng.integers(min(300, len(data))))
        )
        kind = int(rng.integers(6))
        if kind < 3:
            data[place] = [int(rng.integers(256)), 255, data[place] ^ (1 << int(rng.integers(8)))][kind]
        elif kind == 3:
            data = data[: place + 1]
        elif kind == 4:
            del data[place : place + int(rng.integers(1, 40))]
        else:
            data[place : place + 4] = bytes(rng.integers(0, 256, 4, dtype=np.uint8))
        if not data:
            return b"\0"
    return bytes(data)


def look(path: Path) -> str:
    """Open all that a file holds, as napari and the command line do."""
    from napari_embryo import io

    try:
        plan = io.plan_path(path)
        for planned in plan.images[:4]:
            image = io.open_image(planned)
            wanted = tuple(planned.sizes[axis] for axis in planned.final_axes)
            assert image.shape == wanted, f"{image.shape} instead of {wanted}"
            picture = np.asarray(image.data[(0,) * (len(wanted) - 2)])
            assert picture.shape == wanted[-2:], f"{picture.shape} instead of {wanted[-2:]}"
            np.asarray(image.data[(-1,) * (len(wanted) - 2)])
        io.written_layers(path)
    except io.ImageError as error:
        return "refused" if path.name in str(error) else f"refused without its name: {error}"
    return "opened"


class TooLongError(BaseException):
    """No decoder's error, so that nothing takes it for one."""


def too_long(*_: object) -> None:
    raise TooLongError


def run(suffix: str, count: int, first_seed: int) -> dict[str, int]:
    """Look at damaged files; raises at the first that is not opened or refused."""
    said: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = Path(folder) / f"whole.{suffix}"
        FORMATS[suffix](whole)
        content = whole.read_bytes()
        for seed in range(first_seed, first_seed + count):
            path = Path(folder) / f"{seed}.{suffix}"
            path.write_bytes(damaged(content, seed))
            signal.signal(signal.SIGALRM, too_long)
            signal.alarm(SECONDS)
            try:
                outcome = look(path)
            except BaseException as error:
                error.add_note(f"seed {seed} of {suffix}")
                raise
            finally:
                signal.alarm(0)
                path.unlink()
            assert outcome in ("opened", "refused"), f"seed {seed} of {suffix}: {outcome}"
            said[outcome] = said.get(outcome, 0) + 1
    return said


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs limits of memory and time")
@pytest.mark.parametrize("suffix", FORMATS)
def test_a_thousand_damaged_files(suffix: str) -> None:
    pytest.importorskip("av")
    done = subprocess.run([sys.executable, __file__, suffix, "1000", "0"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def main() -> None:
    import resource

    import av
    import dask.array

    import napari_embryo.io

    assert all((av, dask.array, napari_embryo.io))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    said = run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20
    assert more < GIGABYTES, f"{more:.1f} GB"
    sys.stdout.write(f"{sys.argv[1]}: {said}, {more:.2f} GB more\n")


if __name__ == "__main__":
    main()
