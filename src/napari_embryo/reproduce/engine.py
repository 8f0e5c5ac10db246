"""Run the jobs of a table one after the other, skipping finished ones and resuming interrupted ones."""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_embryo import io, recipes
from napari_embryo.families import FAMILIES
from napari_embryo.image import Progress
from napari_embryo.settings import Device, Recipe

if TYPE_CHECKING:
    import pandas as pd

    from napari_embryo.models.checkpoint import Checkpoint

LAST = "last.safetensors"
_RECIPE, _SCORES, _STATE = "recipe.yaml", "scores.csv", "state.safetensors"


@dataclass(frozen=True)
class Job:
    """One network, or a method that networks are compared with.

    Parameters
    ----------
    network
        Name in the table.
    name
        Name in progress messages.
    recipe
        How to train it.
    out
        Output folder.
    work
        Trains and evaluates it: yields progress in epochs of this job and returns one row per image.
    said
        Summarizes the rows in a few words.
    can_be_shorter
        Whether a request for a shorter schedule may reduce its epochs.
    pretrained
        Changes to its recipe when the encoder starts from ImageNet weights.
    """

    network: str
    name: str
    recipe: Recipe
    out: Path
    work: "Callable[[Job], Generator[Progress, None, pd.DataFrame]]"
    said: "Callable[[pd.DataFrame], str]"
    can_be_shorter: bool = True
    pretrained: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PaperTable:
    """A table of a paper.

    Parameters
    ----------
    needed
        Description of what the folders must contain.
    draw
        Creates such a folder of drawn embryos, for a fast run.
    jobs
        (folders, out, fast, device) -> the jobs, ordered so that each finds the weights it starts from.
    table
        Turns the rows of all jobs into the table as text.
    notes
        Explanations below the table.
    without_backbone
        Additional note if no ImageNet weights were given.
    has_spread
        Whether the table shows the spread over several seeds.
    """

    needed: str
    draw: Callable[[Path], Path]
    jobs: Callable[[Sequence[str], Path, bool, Device], tuple[Job, ...]]
    table: "Callable[[pd.DataFrame], pd.DataFrame]"
    notes: tuple[str, ...]
    without_backbone: str = ""
    has_spread: bool = False


def from_imagenet(jobs: Sequence[Job], backbone: Path, encoder: str) -> tuple[Job, ...]:
    """Start every encoder from ImageNet weights; jobs that start from another job are unchanged.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    """
    changed = [replace(job, recipe=_with_imagenet(job, backbone, encoder)) for job in jobs]
    for job in changed:
        if job.recipe.start == recipes.IMAGENET:
            recipes.check_backbone(job.recipe)  # fail now, not after hours of other jobs
    return tuple(changed)


def _with_imagenet(job: Job, backbone: Path, encoder: str) -> Recipe:
    recipe = job.recipe
    if not FAMILIES[recipe.model.family].has_imagenet_encoder:
        return recipe
    begins = recipe.start == recipes.RANDOM
    start = {"start": recipes.IMAGENET, "backbone": str(backbone.absolute()), **job.pretrained} if begins else {}
    return recipes.changed(recipe, {"model.encoder": encoder, **start})


def run(jobs: Sequence[Job]) -> "Generator[Progress, None, pd.DataFrame]":
    """Train and score every job; stop iterating to stop, call again to continue.

    Yields
    ------
    Progress
        ``done`` and ``total`` count epochs of all jobs; ``item`` holds the scores of a finished job.

    Returns
    -------
    pandas.DataFrame
        The rows of all jobs, with an additional column ``network``.
    """
    import pandas as pd

    total = sum(job.recipe.training.epochs for job in jobs)
    tables, done = [], 0
    for job in jobs:
        scores = _finished_scores(job)
        if scores is None:
            scores = yield from _worked(job, done, total)
        done += job.recipe.training.epochs
        tables.append(scores)
        yield Progress(done, total, f"{job.name}: {job.said(scores)}", scores)
    return pd.concat(tables, ignore_index=True)


def _finished_scores(job: Job) -> "pd.DataFrame | None":
    """Scores of a job that has already been finished with this same recipe."""
    import pandas as pd

    if (job.out / _RECIPE).is_file() and _lasting(recipes.read(job.out / _RECIPE)) != _lasting(job.recipe):
        raise ValueError(
            f"{job.out}: holds a network with other settings or data; name another folder with --out, or remove this "
            "one"
        )
    path = job.out / _SCORES
    return pd.read_csv(path, dtype={"image": str, "embryo": str, "source": str}) if path.is_file() else None


def _lasting(recipe: Recipe) -> dict[str, Any]:
    """Settings that must be unchanged; the device may differ."""
    return recipe.model_dump(mode="json", exclude={"training": {"device", "workers"}})


def _worked(job: Job, before: int, total: int) -> "Generator[Progress, None, pd.DataFrame]":
    working = job.work(job)
    try:
        while True:
            step = next(working)
            yield Progress(before + step.done, total, f"{job.name}: {step.message}")
    except StopIteration as end:
        scores: pd.DataFrame = end.value
    finally:
        working.close()
    scores.insert(0, "network", job.network)
    io.write_csv_atomic(job.out / _SCORES, scores.to_dict("records"))
    (job.out / _STATE).unlink(missing_ok=True)  # the largest file, and no longer needed
    return scores


def trained(
    job: Job, score: "Callable[[recipes.Prepared, Checkpoint, Device], pd.DataFrame]"
) -> "Generator[Progress, None, pd.DataFrame]":
    """Train or resume; evaluate the last weights on the test part, which was not used to choose anything."""
    from napari_embryo.models import checkpoint

    prepared = recipes.prepare(job.recipe)
    training = recipes.run(prepared, job.out, resume=(job.out / _RECIPE).is_file())
    try:
        while True:
            step = next(training)
            yield Progress(job.recipe.training.epochs * step.done // max(1, step.total), 0, step.message)
    except StopIteration as end:
        last: Path = end.value.last
    finally:
        training.close()
    return score(prepared, checkpoint.load(last), job.recipe.training.device)


def span(low: float, high: float, form: str = ".3f") -> str:
    """An interval as text; empty if it is not defined, as for a single embryo."""
    return "" if low != low else f"{format(low, form)}-{format(high, form)}"
