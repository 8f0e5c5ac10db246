"""``batch``: process whole folders, overnight or on a cluster, and resume interrupted runs."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from napari_embryo.batch import Again, Plan, Workers, local, on_dask, plan
from napari_embryo.batch.executors import TIME_LIMIT
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
from napari_embryo.cli.run_batch import JsonLines, Words, print_plan, run_batch
from napari_embryo.cli.segment import (
    DEFAULTS,
    AllEmbryos,
    BatchSize,
    FamilyOption,
    GradCam,
    Maps,
    PrecisionOption,
    RatioWeights,
    Threshold,
    Views,
    settings_of,
)
from napari_embryo.cli.terminal import DeviceOption, Weights, check_out_folder, readable_errors
from napari_embryo.settings import BatchSettings

Folders = Annotated[list[Path], typer.Argument(help="Folders of images, searched to any depth, or single images.")]
Out = Annotated[Path, typer.Option(help="Folder for the results; an existing run there is resumed.")]
Include = Annotated[
    list[str] | None, typer.Option(help="Only files that match, such as '*.png' or 'day5/*'; can be repeated.")
]
Exclude = Annotated[list[str] | None, typer.Option(help="No files that match; can be repeated.")]
NoOverlays = Annotated[bool, typer.Option("--no-overlays", help="Write no overlays.")]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Retry images that failed before.")]
Redo = Annotated[
    bool, typer.Option("--redo", help="Process everything again, including finished and unchanged images.")
]
Dask = Annotated[
    str,
    typer.Option(
        help="Compute on a Dask cluster: the scheduler's address, the path of its scheduler file, or 'local' for "
        "Dask workers on this computer."
    ),
]
Processes = Annotated[
    int | None,
    typer.Option(help="Worker processes; by default as many as cores and memory, or graphics cards, allow.", min=1),
]
TimeLimit = Annotated[float, typer.Option(help="Time limit in seconds per image.", min=1)]
Json = Annotated[bool, typer.Option("--json", help="Print progress as JSON, one object per line.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only list what would be done.")]


def batch(
    folders: Folders,
    out: Out,
    include: Include = None,
    exclude: Exclude = None,
    family: FamilyOption = None,
    weights: Weights = DEFAULTS.weights,
    ratio_weights: RatioWeights = DEFAULTS.ratio_weights,
    device: DeviceOption = DEFAULTS.device,
    maps: Maps = None,
    grad_cam: GradCam = DEFAULTS.grad_cam,
    no_overlays: NoOverlays = False,
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
    retry_failed: RetryFailed = False,
    redo: Redo = False,
    dask: Dask = "",
    processes: Processes = None,
    time_limit: TimeLimit = TIME_LIMIT,
    json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Segment whole folders: masks, overlays, tables and a contact sheet.

    Damaged files are listed with the reason and the others are processed. The same command resumes an interrupted run.
    Exit code 0: all images were processed; 1: some were not; 2: none was; 130: interrupted.
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
        batch_settings = BatchSettings(
            segment=settings,
            include=tuple(include or ()),
            exclude=tuple(exclude or ()),
            grouping=grouping,
            overlays=not no_overlays,
            **asdict(choices),
        )
        planned = plan(folders, out, batch_settings)
        if dry_run:
            print_plan(planned)
            raise typer.Exit
        check_out_folder(out)
        with _workers(planned, dask, processes, time_limit) as workers:
            code = run_batch(planned, workers, _again(retry_failed, redo), JsonLines() if json else Words())
    raise typer.Exit(code)


def _again(retry_failed: bool, redo: bool) -> Again:
    return "all" if redo else "failed" if retry_failed else "changed"


def _workers(planned: Plan, dask: str, processes: int | None, time_limit: float) -> AbstractContextManager[Workers]:
    if dask:
        return on_dask(dask, time_limit)
    return nullcontext(local(planned.settings.segment.device, len(planned.jobs), processes, time_limit))
