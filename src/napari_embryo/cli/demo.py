"""``demo``: run the program on drawn embryos and on the given images."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from napari_embryo import io
from napari_embryo.cli.segment import DEFAULTS, Out, segment_all
from napari_embryo.cli.terminal import DeviceOption, check_out_folder, console, make_folder, readable_errors
from napari_embryo.settings import BatchSettings, SegmentSettings

SAMPLE_SEEDS = (2, 5, 9)
DEMO_RESULTS = Path("napari-embryo-demo")


def demo(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="Your own images, in addition to the sample embryos.")
    ] = None,
    out: Out = DEMO_RESULTS,
    device: DeviceOption = DEFAULTS.device,
    show: Annotated[bool, typer.Option(help="Open napari on the results if there is a screen.")] = True,
) -> None:
    """Segment drawn sample embryos and any images given, and show the results in napari."""
    samples = out / "samples"
    with readable_errors():
        check_out_folder(out)
        make_folder(samples)
        drawn = [_draw_sample(samples, seed) for seed in SAMPLE_SEEDS]
    code = segment_all([*drawn, *(paths or [])], BatchSettings(segment=SegmentSettings(device=device)), out)
    if show and _has_screen():
        _show(out)
    elif show:
        console.print("There is no screen, so napari is not opened. Look at the _overlay.png files.")
    raise typer.Exit(code)


def _draw_sample(folder: Path, seed: int) -> Path:
    from napari_embryo.synthetic import draw_blastocyst

    embryo = draw_blastocyst(seed)
    path = folder / f"blastocyst_{seed}.ome.tif"
    return io.write_ome_tiff(path, embryo.image, "YX", pixel_size_um=embryo.pixel_size_um)


def _has_screen() -> bool:
    if os.environ.get("CI"):
        return False
    return not sys.platform.startswith("linux") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _show(out: Path) -> None:
    """Open napari in a separate process, so that this one needs no window."""
    subprocess.run([sys.executable, "-m", "napari_embryo.widgets._show_results", str(out)], check=False)
