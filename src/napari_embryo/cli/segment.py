"""``segment``: from images to masks, maps and a table."""

import csv
from collections.abc import Container, Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import Progress as Bar

from napari_embryo import io, measure
from napari_embryo.cli import reading
from napari_embryo.cli.reading import (
    Axes,
    Focus,
    GapsOption,
    GroupingOption,
    Hours,
    Interval,
    PixelSize,
    Spacing,
    open_choices,
)
from napari_embryo.cli.terminal import (
    DeviceOption,
    Weights,
    check_out_folder,
    console,
    make_folder,
    readable_errors,
    writing,
)
from napari_embryo.cli.terminal import bar as make_bar
from napari_embryo.data.report import counted
from napari_embryo.families import DEFAULT, FAMILIES
from napari_embryo.image import EmbryoImage, Progress
from napari_embryo.io import Grouping, OpenChoices
from napari_embryo.notes import Note
from napari_embryo.settings import FAMILIES_SAID, Precision, SegmentSettings

if TYPE_CHECKING:
    from napari_embryo.pipeline import ImageResult, Row

RESEARCH_ONLY = "Research use only: not a medical device; check every result before you use it."
DEFAULTS = SegmentSettings()
RESULTS = Path("napari-embryo-results")

Paths = Annotated[list[Path], typer.Argument(help="Images, or folders of images, time-lapses or focal planes.")]
Out = Annotated[Path, typer.Option(help="Folder for the results; created if needed.")]
FamilyOption = Annotated[
    str | None,
    typer.Option(
        "--family",
        help=f"Family of networks whose bundled weights are used: {FAMILIES_SAID}. Default: {DEFAULT}. Other weights "
        "state their own family.",
    ),
]
RatioWeights = Annotated[
    str,
    typer.Option(
        help="For fragments: other weights that estimate the ratio while --weights draw the masks, as the paper "
        "recommends. Empty: the same weights do both."
    ),
]
_USUAL_MAPS = ", ".join(f"{','.join(FAMILIES[n].usual_maps)} ({n})" for n in FAMILIES if FAMILIES[n].usual_maps)
Maps = Annotated[
    str | None,
    typer.Option(help=f"Attention maps to write, such as SA1,LA1; '' for none. Default: {_USUAL_MAPS}."),
]
GradCam = Annotated[str, typer.Option(help="Layer for additional Grad-CAMs, such as 'encoder 1/32'; empty for none.")]
Threshold = Annotated[float, typer.Option(help="Probability from which a pixel belongs to a class.")]
BatchSize = Annotated[int, typer.Option(help="Number of frames computed together.")]
PrecisionOption = Annotated[Precision, typer.Option(help="auto: bfloat16 if the device computes it natively.")]
Views = Annotated[
    int,
    typer.Option(help="Average over 2, 4 or 8 mirrored and rotated views: that many times slower, somewhat better."),
]
AllEmbryos = Annotated[bool, typer.Option("--all-embryos", help="Keep all embryos, not only the largest one.")]


def segment(
    paths: Paths,
    out: Out = RESULTS,
    family: FamilyOption = None,
    weights: Weights = DEFAULTS.weights,
    ratio_weights: RatioWeights = DEFAULTS.ratio_weights,
    device: DeviceOption = DEFAULTS.device,
    maps: Maps = None,
    grad_cam: GradCam = DEFAULTS.grad_cam,
    focus: Focus = "best",
    grouping: GroupingOption = "auto",
    pixel_size: PixelSize = None,
    axes: Axes = None,
    hours: Hours = None,
    interval: Interval = None,
    spacing: Spacing = None,
    gaps: GapsOption = "leave out",
    threshold: Threshold = DEFAULTS.threshold,
    batch_size: BatchSize = DEFAULTS.batch_size,
    precision: PrecisionOption = DEFAULTS.precision,
    views: Views = DEFAULTS.views,
    all_embryos: AllEmbryos = False,
) -> None:
    """Segment images; write masks, attention maps and an overlay for each, and one table of measurements.

    Single cells are written as complete masks and COCO JSON; in a time-lapse they keep their number, and divisions are
    recorded.

    Results of images of the same name are replaced; measurements.csv keeps the rows of all other images.
    """
    asked: dict[str, Any] = {} if family is None else {"family": family}
    if maps is not None:
        asked["maps"] = tuple(name.strip() for name in maps.split(",") if name.strip())
    with readable_errors():
        settings = SegmentSettings.model_validate(
            {
                "weights": weights,
                "ratio_weights": ratio_weights,
                "device": device,
                "grad_cam": grad_cam,
                "threshold": threshold,
                "batch_size": batch_size,
                "precision": precision,
                "views": views,
                "one_embryo": not all_embryos,
                **asked,
            }
        )
        choices = open_choices(
            axes=axes,
            hours=hours,
            interval=interval,
            spacing=spacing,
            gaps=gaps,
            pixel_size=pixel_size,
            focus=focus,
        )
    failures = segment_all(paths, settings, out, grouping, choices)
    raise typer.Exit(1 if failures else 0)


def segment_all(
    paths: Sequence[Path], settings: SegmentSettings, out: Path, grouping: Grouping, choices: OpenChoices
) -> list[str]:
    """Segment every image of every path; return failures. The table is written even if the run is stopped."""
    from napari_embryo.pipeline import load_predictor, segment_all_to_files

    with readable_errors():
        check_out_folder(out)
        make_folder(out)
        predictor = load_predictor(settings)
    console.print(
        f"{predictor.family.name} on {predictor.device}, weights {settings.weights} ({predictor.sha256[:12]})"
    )
    done: list[ImageResult] = []
    failures: list[str] = []
    try:
        with make_bar() as bar:
            images = _images(paths, grouping, choices, failures, _Names(), bar)
            _follow(segment_all_to_files(images, predictor, out), done, failures, bar)
    except MemoryError as error:
        failures.append(str(error))
    finally:
        rows = [row for result in done for row in result.rows]
        said = _write_table(out / "measurements.csv", rows, failures)
        _report(out, len(done), rows, failures, (*predictor.notes, *said))
    return failures


def _write_table(path: Path, rows: "Sequence[Row]", failures: list[str]) -> tuple[Note, ...]:
    """Write the table, keeping rows of other images; a failure is reported like any other."""
    if not rows:
        return ()
    try:
        kept, said = _rows_of_others(path, {str(row["image"]) for row in rows})
        with writing(path):
            io.write_csv_atomic(path, [*kept, *map(_rounded, rows)])
    except OSError as error:
        failures.append(str(error))
        return ()
    return said


def _rows_of_others(path: Path, names: Container[str]) -> tuple[list[dict[str, str]], tuple[Note, ...]]:
    """Rows of an existing table about other images, and a line about them."""
    if not path.exists():
        return [], ()
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns, rows = reader.fieldnames or (), list(reader)
    except (UnicodeDecodeError, csv.Error):
        columns, rows = (), []
    if "image" not in columns:
        return [], (Note("warning", f"the existing {path.name} is not a table of images; it is replaced"),)
    kept = [{name: row[name] for name in columns} for row in rows if row["image"] not in names]
    count = len({row["image"] for row in kept})
    said = f"{path.name} keeps the rows of {counted(count, 'other image')} measured before"
    return kept, (Note("info", said),) if count else ()


def _rounded(row: "Row") -> "Row":
    """Round numbers other than counts to six digits; no measurement is more precise."""
    return {name: float(f"{value:.6g}") if isinstance(value, float) else value for name, value in row.items()}


class _Names:
    """Names for results: those of the images, numbered if two would be the same, even ignoring case."""

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
    """Every image that can be opened; the others are recorded in ``failures``."""
    from napari_embryo.pipeline import with_files

    task = bar.add_task("images", total=None)
    planned: list[io.PlannedImage] = []
    for path in paths:
        try:
            plan = reading.plan(path, grouping, choices)
        except (OSError, ValueError) as error:
            failures.append(str(error))
            continue
        print_notes(Note("info", text) for text in plan.said)
        failures += plan.problems
        planned += plan.images
    bar.update(task, total=len(planned))
    for one in planned:
        try:
            image = io.open_image(one)
        except (OSError, ValueError) as error:
            failures.append(str(error))
            bar.advance(task)
        else:
            yield with_files(image.with_data(image.data, name=names.free(image.name)), one)


def _named(name: str, reason: str) -> str:
    return reason if name in reason else f"{name}: {reason}"


def _follow(
    steps: "Iterator[tuple[EmbryoImage, Progress]]", done: "list[ImageResult]", failures: list[str], bar: Bar
) -> None:
    """Process the stream: finished images, failures, and a progress bar for every stack."""
    from napari_embryo.pipeline import Failure, ImageResult

    for image, progress in steps:
        match progress.item:
            case ImageResult() as result:
                done += [result] if result.reason is None else []
                failures += _reason(result, failures)
                _finish_bar(bar)
            case Failure() as failure:
                failures.append(_named(image.name, failure.reason))
        if image.n_planes > 1 and not isinstance(progress.item, ImageResult):
            _stack_bar(bar, image, progress.done)


def _reason(result: "ImageResult", failures: Sequence[str]) -> list[str]:
    """Why an image failed, unless already reported for its only plane."""
    said = result.reason is None or (failures and result.reason in failures[-1])
    return [] if said else [_named(result.image.name, str(result.reason))]


def _stack_bar(bar: Bar, image: EmbryoImage, done: int) -> None:
    """A separate progress bar for a stack, below that of the images."""
    stacks = bar.tasks[1:]
    task = stacks[0].id if stacks else bar.add_task(image.name, total=image.n_planes)
    bar.update(task, completed=done)


def _finish_bar(bar: Bar) -> None:
    images, *stacks = bar.tasks
    bar.advance(images.id)
    for task in stacks:
        bar.remove_task(task.id)


def _report(out: Path, done: int, rows: "Sequence[Row]", failures: Sequence[str], notes: Sequence[Note]) -> None:
    for line in _cells_said(rows):
        console.print(line, markup=False)
    print_notes((*notes, *_far_apart(rows)))
    console.print(f"{counted(done, 'image')} done, {len(failures)} failed; results in {out.resolve()}")
    for failure in failures:
        console.print(f"failed: {failure}", style="red", markup=False)
    console.print(RESEARCH_ONLY, style="dim")


def print_notes(notes: Iterable[Note]) -> None:
    """Print a note."""
    for note in notes:
        console.print(f"{'note' if note.level == 'info' else 'warning'}: {note.text}", markup=False)


def _cells_said(rows: "Sequence[Row]") -> Iterator[str]:
    """Print the number of cells of every image that was searched for cells."""
    for name, own in groupby(rows, key=itemgetter("image")):
        if line := measure.cells_said(own):
            yield f"{name}: {line}"


def _far_apart(rows: "Sequence[Row]") -> Iterator[Note]:
    """Print a line for every image in which mask and regression differ by more than one grade."""
    for name, own in groupby(rows, key=itemgetter("image")):
        if line := measure.far_apart_said(own):
            yield Note("warning", f"{name}: {line}")
