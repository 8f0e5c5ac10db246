"""The command line: thin loops over the generators; the only place that prints."""

import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table

from napari_embryo import __version__, io
from napari_embryo.image import EmbryoImage, Progress
from napari_embryo.io import Grouping, OpenChoices
from napari_embryo.settings import Device, SegmentSettings

if TYPE_CHECKING:
    from napari_embryo.pipeline import ImageResult, Row

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Segment, explain and measure human embryos.")
console = Console(highlight=False, soft_wrap=True)
errors = Console(highlight=False, soft_wrap=True, stderr=True)

RESEARCH_ONLY = "Research use only: not a medical device; look at every result before you use it."
DEFAULTS = SegmentSettings()
DEFAULT_MAPS = ",".join(DEFAULTS.maps)
SAMPLE_SEEDS = (2, 5, 9)
RESULTS = Path("napari-embryo-results")
DEMO_RESULTS = Path("napari-embryo-demo")

Paths = Annotated[list[Path], typer.Argument(help="Images, or folders of images, time-lapses or focal planes.")]
Out = Annotated[Path, typer.Option(help="Folder for the results; made if it is not there.")]
Family = Annotated[str, typer.Option(help="Family of networks: resanet (blastocyst: ICM, TE, ZP).")]
Weights = Annotated[str, typer.Option(help="'bundled', or a .safetensors checkpoint of napari-embryo.")]
DeviceOption = Annotated[Device, typer.Option(help="auto takes the graphics card where there is one.")]
Maps = Annotated[str, typer.Option(help="Attention maps to write, such as SA1,SA2,LA1; empty for none.")]
GradCam = Annotated[str, typer.Option(help="Layer for Grad-CAMs beside them, such as 'encoder 1/32'; empty for none.")]
Focus = Annotated[str, typer.Option(help="Of focal planes: best (the sharpest) or edf (extended depth of field).")]
GroupingOption = Annotated[
    Grouping, typer.Option(help="Files of a folder: as their names say, one stack, or one by one.")
]
PixelSize = Annotated[float | None, typer.Option(help="Micrometres per pixel, where the files do not say.", min=1e-6)]
Threshold = Annotated[float, typer.Option(help="Probability from which a pixel belongs to a class.")]
BatchSize = Annotated[int, typer.Option(help="Frames computed together.")]


@app.callback(invoke_without_command=True)
def _root(show_version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False) -> None:
    if show_version:
        console.print(f"napari-embryo {__version__}")
        raise typer.Exit


@app.command()
def segment(
    paths: Paths,
    out: Out = RESULTS,
    family: Family = DEFAULTS.family,
    weights: Weights = DEFAULTS.weights,
    device: DeviceOption = DEFAULTS.device,
    maps: Maps = DEFAULT_MAPS,
    grad_cam: GradCam = DEFAULTS.grad_cam,
    focus: Focus = "best",
    grouping: GroupingOption = "auto",
    pixel_size: PixelSize = None,
    threshold: Threshold = DEFAULTS.threshold,
    batch_size: BatchSize = DEFAULTS.batch_size,
) -> None:
    """Segment images; write masks, attention maps, an overlay picture each and one table of measurements."""
    names = tuple(name.strip() for name in maps.split(",") if name.strip())
    with _readable_errors():
        settings = SegmentSettings.model_validate(
            {
                "family": family,
                "weights": weights,
                "device": device,
                "maps": names,
                "grad_cam": grad_cam,
                "threshold": threshold,
                "batch_size": batch_size,
            }
        )
        choices = OpenChoices(
            focus=_focus(focus), pixel_size_um=None if pixel_size is None else (pixel_size, pixel_size)
        )
    failures = _segment_all(paths, settings, out, grouping, choices)
    raise typer.Exit(1 if failures else 0)


@app.command()
def demo(
    paths: Annotated[list[Path] | None, typer.Argument(help="Images of your own, beside the sample embryos.")] = None,
    out: Out = DEMO_RESULTS,
    device: DeviceOption = DEFAULTS.device,
    show: Annotated[bool, typer.Option(help="Open napari on the results where there is a screen.")] = True,
) -> None:
    """Segment the sample embryos, which the program draws, and any images given; show them in napari."""
    samples = out / "samples"
    with _readable_errors():
        _make_folder(out)
        samples.mkdir(exist_ok=True)
        drawn = [_draw_sample(samples, seed) for seed in SAMPLE_SEEDS]
    failures = _segment_all(
        [*drawn, *(paths or [])], SegmentSettings(device=device), out, "auto", OpenChoices(focus="best")
    )
    if show and _has_screen():
        _show(out)
    elif show:
        console.print("No screen here: napari is not opened. Look at the _overlay.png files.")
    raise typer.Exit(1 if failures else 0)


@app.command()
def info() -> None:
    """Print versions, torch build, devices, memory, and where the weights lie."""
    import psutil
    import torch

    from napari_embryo.predict import devices

    table = Table(show_header=False, box=None)
    table.add_row("napari-embryo", __version__)
    table.add_row("Python", f"{platform.python_version()} on {platform.platform()}")
    for name in ("napari", "numpy", "torchvision", "scikit-image", "tifffile"):
        table.add_row(name, _version(name))
    table.add_row("torch", f"{torch.__version__}, {_torch_build()}")
    for name, reason in devices().items():
        table.add_row(f"device {name}", _device_text(name) if reason is None else f"not usable: {reason}")
    memory = psutil.virtual_memory()
    table.add_row("memory", f"{memory.total / 2**30:.1f} GiB, {memory.available / 2**30:.1f} GiB free")
    for label, text in _weights_rows():
        table.add_row(label, text)
    console.print(table)


def main() -> None:
    """The command ``napari-embryo``."""
    app()


def _segment_all(
    paths: Sequence[Path], settings: SegmentSettings, out: Path, grouping: Grouping, choices: OpenChoices
) -> list[str]:
    """Every image of every path; returns what failed. The table is written even when the run is stopped."""
    from napari_embryo.pipeline import load_predictor, segment_all_to_files

    with _readable_errors():
        _make_folder(out)
        predictor = load_predictor(settings)
    console.print(f"{settings.family} on {predictor.device}, weights {settings.weights} ({predictor.sha256[:12]})")
    rows: list[Row] = []
    failures: list[str] = []
    try:
        with _bar() as bar:
            images = _images(paths, grouping, choices, failures, _Names(), bar)
            _follow(segment_all_to_files(images, predictor, out), rows, failures, bar)
    except MemoryError as error:
        failures.append(str(error))
    finally:
        if rows:
            io.write_csv_atomic(out / "measurements.csv", rows)
        _report(out, rows, failures, predictor.notes)
    return failures


class _Names:
    """Names for results: the image's own, numbered where two images share one, also on Windows and macOS."""

    def __init__(self) -> None:
        self.taken: set[str] = set()

    def free(self, name: str) -> str:
        candidates = (name if i == 1 else f"{name}_{i}" for i in range(1, len(self.taken) + 2))
        chosen = next(c for c in candidates if c.casefold() not in self.taken)
        self.taken.add(chosen.casefold())
        return chosen


def _images(
    paths: Sequence[Path], grouping: Grouping, choices: OpenChoices, failures: list[str], names: _Names, bar: Bar
) -> Iterator[EmbryoImage]:
    """Every image that can be opened; the others are named in ``failures``."""
    task = bar.add_task("images", total=None)
    planned: list[io.PlannedImage] = []
    for path in paths:
        try:
            plan = io.plan_path(path, grouping)
        except (OSError, ValueError) as error:
            failures.append(str(error))
            continue
        failures += plan.problems
        planned += [_edited(image, choices) for image in plan.images]
    bar.update(task, total=len(planned))
    for one in planned:
        try:
            image = io.open_image(one)
        except (OSError, ValueError) as error:
            failures.append(str(error))
            bar.advance(task)
        else:
            yield image.with_data(image.data, name=names.free(image.name))


def _edited(image: io.PlannedImage, choices: OpenChoices) -> io.PlannedImage:
    """As chosen; a pixel size that the file knows stays."""
    return image.edited(choices if image.pixel_size_um is None else replace(choices, pixel_size_um=None))


def _named(name: str, reason: str) -> str:
    return reason if name in reason else f"{name}: {reason}"


def _follow(steps: "Iterator[tuple[EmbryoImage, Progress]]", rows: "list[Row]", failures: list[str], bar: Bar) -> None:
    """Take in what comes: rows, failures, a bar for every stack."""
    from napari_embryo.pipeline import ImageResult, PlaneFailure

    for image, progress in steps:
        match progress.item:
            case ImageResult() as result:
                rows += result.rows
                failures += _reason(result, failures)
                _finish_bar(bar)
            case PlaneFailure() as failure:
                failures.append(_named(image.name, failure.reason))
        if image.n_planes > 1 and not isinstance(progress.item, ImageResult):
            _stack_bar(bar, image, progress.done)


def _reason(result: "ImageResult", failures: Sequence[str]) -> list[str]:
    """Why an image failed, unless its only picture has said so."""
    said = result.reason is None or (failures and result.reason in failures[-1])
    return [] if said else [_named(result.image.name, str(result.reason))]


def _stack_bar(bar: Bar, image: EmbryoImage, done: int) -> None:
    """A bar of its own for a stack, below that of the images."""
    stacks = bar.tasks[1:]
    task = stacks[0].id if stacks else bar.add_task(image.name, total=image.n_planes)
    bar.update(task, completed=done)


def _finish_bar(bar: Bar) -> None:
    images, *stacks = bar.tasks
    bar.advance(images.id)
    for task in stacks:
        bar.remove_task(task.id)


def _report(out: Path, rows: "Sequence[Row]", failures: Sequence[str], notes: Sequence[str]) -> None:
    for note in notes:
        console.print(f"note: {note}", markup=False)
    done = len({row["image"] for row in rows})
    console.print(f"{done} image{'' if done == 1 else 's'} done, {len(failures)} failed; results in {out.resolve()}")
    for failure in failures:
        console.print(f"failed: {failure}", style="red", markup=False)
    console.print(RESEARCH_ONLY, style="dim")


@contextmanager
def _readable_errors() -> Iterator[None]:
    """What the user can mend becomes one line and exit code 2."""
    try:
        yield
    except (OSError, ValueError) as error:
        text = _wrong_options(error) if isinstance(error, ValidationError) else str(error)
        errors.print(f"error: {text}", style="red", markup=False)
        raise typer.Exit(2) from error


def _wrong_options(error: ValidationError) -> str:
    """In the words of the command line: "--threshold: 2.0 came; input should be less than 1"."""
    return "; ".join(
        f"--{'-'.join(map(str, problem['loc'])).replace('_', '-')}: {problem['input']!r} came; "
        f"{problem['msg'][:1].lower()}{problem['msg'][1:]}"
        for problem in error.errors()
    )


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = "a file stands there" if path.is_file() else (error.strerror or str(error))
        raise OSError(f"--out {path}: this folder cannot be made ({reason}); choose another one") from error


def _focus(name: str) -> Any:
    if name not in ("best", "edf"):
        raise ValueError(f"--focus {name!r} is not known; choose best or edf")
    return name


def _bar() -> Bar:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Bar(*columns, console=console, transient=True, disable=not console.is_terminal)


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
    """Open napari in a process of its own, so that this one needs no window."""
    subprocess.run([sys.executable, "-m", "napari_embryo.widgets.show", str(out)], check=False)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _torch_build() -> str:
    import torch

    return f"CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"


def _device_text(name: str) -> str:
    import torch

    if name == "cuda":
        card = torch.cuda.get_device_properties(0)
        return f"{card.name}, {card.total_memory / 2**30:.1f} GiB"
    return f"usable, {torch.get_num_threads()} threads" if name == "cpu" else "usable"


def _weights_rows() -> list[tuple[str, str]]:
    from napari_embryo.models import FAMILIES
    from napari_embryo.models.checkpoint import bundled, file_sha256

    rows = []
    for family in FAMILIES:
        try:
            path = bundled(family)
        except FileNotFoundError:
            continue
        rows.append((f"weights {family}", f"{path} (sha256 {file_sha256(path)[:12]})"))
    return rows or [("weights", "none ship with this version")]
