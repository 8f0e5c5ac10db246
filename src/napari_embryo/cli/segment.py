"""``segment``: from a few images to masks, maps and a table."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from napari_embryo.batch import Inline, plan
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
from napari_embryo.cli.run_batch import Words, run_batch
from napari_embryo.cli.terminal import DeviceOption, Weights, check_out_folder, readable_errors
from napari_embryo.families import DEFAULT, FAMILIES
from napari_embryo.settings import FAMILIES_SAID, BatchSettings, Precision, SegmentSettings

DEFAULTS = SegmentSettings()
USUAL = "usual"
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
    typer.Option(
        help=f"Attention maps to write, such as SA1,LA1, or 'usual' for {_USUAL_MAPS}. Default: none; they take ten "
        "times the space of everything else."
    ),
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
    """Segment images; write masks and an overlay for each, and one table of measurements.

    Single cells are written as complete masks and COCO JSON; in a time-lapse they keep their number, and divisions are
    recorded.

    Images already processed with the same settings and unchanged since are skipped; measurements.csv keeps the rows of
    all other images. For whole folders, overnight or on a cluster, use napari-embryo batch.
    """
    with readable_errors():
        settings = settings_of(
            family=family,
            weights=weights,
            ratio_weights=ratio_weights,
            device=device,
            maps=maps,
            grad_cam=grad_cam,
            threshold=threshold,
            batch_size=batch_size,
            precision=precision,
            views=views,
            one_embryo=not all_embryos,
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
        batch_settings = BatchSettings.model_validate({"segment": settings, "grouping": grouping, **asdict(choices)})
    raise typer.Exit(segment_all(paths, batch_settings, out))


def settings_of(family: str | None, maps: str | None, **others: Any) -> SegmentSettings:
    """The settings given by a command's options; weights other than bundled ones state their family.

    Raises
    ------
    ValueError
        If they are invalid or contradict each other.
    """
    if family is not None:
        others["family"] = family
    if maps != USUAL:
        others["maps"] = tuple(name.strip() for name in (maps or "").split(",") if name.strip())
    return SegmentSettings.model_validate(others)


def segment_all(paths: Sequence[Path], settings: BatchSettings, out: Path) -> int:
    """Segment every image of every path in this process; return the exit code."""
    with readable_errors():
        check_out_folder(out)
        return run_batch(plan(paths, out, settings), Inline(), "changed", Words(is_for_few=True))
