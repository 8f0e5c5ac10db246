"""The training loop, as a generator."""

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from napari_embryo.data import Sample
from napari_embryo.image import Progress
from napari_embryo.models import Network
from napari_embryo.settings import Recipe
from napari_embryo.stream import Finished, Step
from napari_embryo.train import loader, run_folder
from napari_embryo.train.launch import team
from napari_embryo.train.run import Run, outcome
from napari_embryo.train.run_state import Files, Journal, read_journal


def train(
    model: Network,
    training: Sequence[Sample],
    validation: Sequence[Sample],
    recipe: Recipe,
    out: Path,
    resume: bool = False,
    provenance: Mapping[str, Any] | None = None,
) -> Generator[Progress, None, Finished]:
    """Train ``model`` in place; stop iterating to end early, which keeps the best and the current weights.

    Parameters
    ----------
    model
        A network of this package with its initial weights.
    training, validation
        Samples to learn from and samples to validate on. Without validation the latest epoch counts as the best. A
        shape code learns from every cell separately.
    recipe
        Its ``preprocessing``, ``augmentation``, ``training`` and ``data.repeats`` are used.
    out
        Folder for ``best.safetensors``, ``last.safetensors``, ``history.csv`` and ``state.safetensors``.
    resume
        Continue after the last finished epoch in ``out`` as if never interrupted (bit-identical on a processor).
    provenance
        Information for a model card, stored in the checkpoints.

    Yields
    ------
    Progress
        ``item`` is a :class:`~napari_embryo.stream.Step`, an :class:`~napari_embryo.stream.Epoch` or a
        :class:`~napari_embryo.notes.Note`; ``done`` and ``total`` count steps.

    Returns
    -------
    Finished
        Best epoch and paths of the checkpoints.

    Raises
    ------
    ValueError
        If there is nothing to learn from, a name is unknown, ``out`` holds a different run or one still in progress,
        or fewer devices are available than requested.
    FileNotFoundError
        If there is no run to resume.
    FloatingPointError
        If a loss is not finite; the message names the images. The network is left as it was before the step, and the
        files are those of the last finished epoch.
    MemoryError
        If memory does not suffice even for one image.
    OSError
        If the files cannot be written; those of the previous epoch remain intact.
    """
    training, validation = (loader.visits_of(model, samples) for samples in (training, validation))
    with run_folder.claimed(out), team(model, training, recipe) as cards:
        run = Run(model, training, validation, recipe, out, provenance or {}, cards)
        if resume:
            run.resume()
        else:
            run.begin()
        return (yield from _epochs(run))


def _epochs(run: Run) -> Generator[Progress, None, Finished]:
    with closing(run.course.batches()) as source:
        try:
            while run.goes_on():
                steps: list[Step] = []
                for _ in range(run.course.steps_per_epoch):
                    steps.append(run.course.step(source))
                    yield from (run.progress(note.text, note) for note in run.tell_notes())
                    yield run.progress(_said(steps[-1].losses), steps[-1])
                epoch = run.finish_epoch(steps)
                yield from (run.progress(note.text, note) for note in run.tell_notes())
                yield run.progress(f"epoch {epoch.epoch}: {_said(epoch.scores or epoch.train)}", epoch)
        except GeneratorExit:
            run.keep_present()
            raise
    return run.outcome()


def stopped(out: Path) -> Finished:
    """What a stopped run (generator closed or process killed) left in its folder.

    If it was stopped before it began there is nothing: no epoch and no files.
    """
    files = Files(out)
    journal = read_journal(files) if files.state.is_file() else Journal()
    return outcome(files, journal, "stopped")


def _said(numbers: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in numbers.items())
