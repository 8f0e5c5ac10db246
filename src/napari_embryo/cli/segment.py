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
Out = Annotated[Path, typer.Option(help="Folder for the results; made if it is not there.")]
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
        "times the room of everything else."
    ),
]
GradCam = Annotated[str, typer.Option(help="Layer for Grad-CAMs beside them, such as 'encoder 1/32'; empty for none.")]
Threshold = Annotated[float, typer.Option(help="Probability from which a pixel belongs to a class.")]
BatchSize = Annotated[int, typer.Option(help="Frames computed together.")]
PrecisionOption = Annotated[Precision, typer.Option(help="auto: bfloat16 where it is computed natively.")]
Views = Annotated[
    int, typer.Option(help="Average over 2, 4 or 8 mirrored and turned views: as many times slower, somewhat better.")
]
AllEmbryos = Annotated[
    bool, typer.Option("--all-embryos", help="Keep a neighbor's parts too, not only the largest embryo.")
]


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
    """Segment images; write masks, an overlay picture each and one table of measurements.

    Single cells are written as complete masks and COCO JSON; in a time-lapse they keep their number, and divisions are
    recorded.

    Images that have not changed since they were done with the same settings are not done again; measurements.csv keeps
    the rows of all other images. For whole folders, overnight or on a cluster: napari-embryo batch.
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
    """The settings of a command's options; weights of one's own state their family.

    Raises
    ------
    ValueError
        When they are wrong, or do not fit each other.
    """
    if family is not None:
        others["family"] = family
    if maps != USUAL:
        others["maps"] = tuple(name.strip() for name in (maps or "").split(",") if name.strip())
    return SegmentSettings.model_validate(others)


def segment_all(paths: Sequence[Path], settings: BatchSettings, out: Path) -> int:
    """Every image of every path, in this process; returns the exit code."""
    with readable_errors():
        check_out_folder(out)
        return run_batch(plan(paths, out, settings), Inline(), "changed", Words(is_for_few=True))
