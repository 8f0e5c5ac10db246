"""One training run: its samples, its learner, its journal and its files."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from napari_embryo.data import Sample
from napari_embryo.image import Progress
from napari_embryo.models import Network
from napari_embryo.models.checkpoint import CheckpointInfo
from napari_embryo.models.checkpoint import save as save_checkpoint
from napari_embryo.notes import Note
from napari_embryo.settings import Recipe
from napari_embryo.stream import Epoch, Finished, Step, mean_score
from napari_embryo.train import loader, run_folder, run_state
from napari_embryo.train.course import Course
from napari_embryo.train.ddp import ALONE, Team
from napari_embryo.train.loader import items_for
from napari_embryo.train.run_state import Files, Journal

_WORST = 5


class Run:
    """A run as driven by :func:`napari_embryo.train.train`, one step and one epoch at a time.

    Parameters
    ----------
    model, training, validation, recipe, provenance
        As in :func:`napari_embryo.train.train`.
    out
        Folder for its files.
    team
        The devices to train on; this process has the first.
    """

    def __init__(
        self,
        model: Network,
        training: Sequence[Sample],
        validation: Sequence[Sample],
        recipe: Recipe,
        out: Path,
        provenance: Mapping[str, Any],
        team: Team = ALONE,
    ) -> None:
        self.recipe, self.settings, self.files, self._provenance = recipe, recipe.training, Files(out), provenance
        if not training:
            raise ValueError("there is no sample to learn from; give at least one annotated image")
        if self.settings.patience and not validation:
            raise ValueError(
                "patience needs validation images to recognize a better epoch; provide some or set it to 0"
            )
        self.course = Course(model, training, recipe, team)
        self.learner = self.course.learner
        self.validation = validation
        self._judged = items_for(model, validation, recipe.preprocessing)
        self._start: float | None = None
        self._journal = Journal()
        run_state.tidy(self.files)
        run_folder.check_room(self.files.folder, run_state.sizes(self.files, self.learner.model))

    def _identify(self) -> None:
        """Identity of the run; reads every image once."""
        self._identity = run_state.identity(self.learner.model, self.recipe, self.course.visited, self.validation)

    def begin(self) -> None:
        """Write the files before the first step, so that even a run interrupted at once can be resumed.

        The state is written first: it alone suffices to resume, and without it the other files would be in the way.
        """
        self._check()
        self._identify()
        self._judge_start()
        with run_state.writing(self.files, 0):
            self.files.history.unlink(missing_ok=True)
            self._save_state()
            self._checkpoint(self.files.best)
            self._checkpoint(self.files.last)
        self.course.level()

    def _judge_start(self) -> None:
        """Score the starting weights, which training has to beat; random weights are not scored."""
        if self.recipe.start == "random" or not self.validation:
            return
        _, scores, _ = self._judge()
        self._start = mean_score(scores)
        if self._start is not None:
            said = ", ".join(f"{name} {score:.3f}" for name, score in scores.items())
            self.learner.notes.append(Note("info", f"before training: {said}; mean {self._start:.3f}"))

    def _check(self) -> None:
        """Refuse an invalid recipe before any file is written that would be in the way of a corrected one."""
        first = items_for(self.learner.model, self.course.visited[:1], self.recipe.preprocessing)
        for _, batch in loader.prepared(first, loader.in_order(1, 1)):
            self.learner.check(batch)

    def resume(self) -> None:
        """Restore the end of the last finished epoch."""
        planned = run_state.read_journal(self.files).planned
        self._identify()
        self._journal = run_state.load_state(self.files, self.learner.model, self.learner.optimizer, self._identity)
        self.learner.micro = self._journal.micro
        self.learner.load_scaler(self._journal.scaler)
        self.learner.notes = [note for note in self.learner.notes if note not in self._journal.notes]
        self.course.steps = self._journal.epoch * self.course.steps_per_epoch
        self._go_further_than(planned)
        self.course.level()

    def _go_further_than(self, planned: int) -> None:
        """Extend the run to more epochs than first requested."""
        now = self.settings.epochs
        if now < planned:
            raise ValueError(
                f"{self.files.state}: this run was planned for {planned} epochs, but {now} were given; give as many or "
                "more, or start a new run in another folder"
            )
        if now > planned:
            said = (
                f"extending to {now} epochs instead of {planned}: from epoch {self.course.epoch} on, the learning rate "
                f"is that of a run of {now} epochs"
            )
            self.learner.notes.append(Note("info", said))

    def goes_on(self) -> bool:
        """Whether there is another epoch to train."""
        return self._journal.epoch < self.settings.epochs and not self._is_patience_over()

    def _is_patience_over(self) -> bool:
        best = self._journal.best
        patience = self.settings.patience
        return bool(patience) and best is not None and self._journal.epoch - best.epoch >= patience

    def finish_epoch(self, steps: Sequence[Step]) -> Epoch:
        """Validate the network and write all files."""
        start = time.perf_counter()
        validation, scores, worst = self._judge()
        self._warn()
        epoch = Epoch(
            done=self.course.steps,
            total=self.course.total,
            epoch=self._journal.epoch + 1,
            train=_means([step.losses for step in steps]),
            validation=validation,
            scores=scores,
            worst=worst,
            learning_rate=steps[-1].learning_rate,
            seconds=sum(step.seconds for step in steps) + time.perf_counter() - start,
            best=_is_better(scores, self._journal.best),
        )
        self._journal.history.append(epoch)
        self._save(is_best=epoch.best)
        return epoch

    def _warn(self) -> None:
        """Warn once per run, and only after the warm-up: a new head gives the same answer for everything at first."""
        warning = self.learner.watcher.warning()
        is_told = warning is None or warning in (*self._journal.notes, *self.learner.notes)
        if warning and not is_told and self.course.steps > self.settings.warm_up * self.course.total:
            self.learner.notes.append(warning)

    def _judge(self) -> tuple[dict[str, float], dict[str, float], tuple[tuple[str, float], ...]]:
        """Mean losses, mean scores and the worst images; what is known for no image has no loss and no score."""
        if not self.validation:
            return {}, {}, ()
        self.learner.watcher.forget()
        visits = loader.in_order(len(self.validation), self.settings.batch_size)
        sums: dict[str, float] = {}
        known: dict[str, float] = {}
        scores: list[dict[str, Tensor]] = []
        for _, batch in loader.prepared(self._judged, visits):
            counts = self.learner.counts(batch)
            losses, each = self.learner.judge(batch)
            for name, loss in losses.items():
                sums[name] = sums.get(name, 0.0) + loss * counts[name]
                known[name] = known.get(name, 0.0) + counts[name]
            scores.append(each)
        tables = {name: torch.cat([s[name] for s in scores]) for name in scores[0]}
        means = {name: values.nanmean().item() for name, values in tables.items() if not values.isnan().all()}
        return {name: total / known[name] for name, total in sums.items()}, means, self._worst(tables)

    def _worst(self, tables: Mapping[str, Tensor]) -> tuple[tuple[str, float], ...]:
        each = torch.stack(list(tables.values())).nanmean(0).tolist()
        names = (f"{sample.source}/{sample.name}" for sample in self.validation)
        named = [(name, score) for name, score in zip(names, each, strict=True) if score == score]
        return tuple(sorted(named, key=lambda pair: pair[1])[:_WORST])

    def progress(self, message: str, item: Step | Epoch | Note) -> Progress:
        """Progress of the run."""
        return Progress(self.course.steps, self.course.total, message, item)

    def tell_notes(self) -> list[Note]:
        """Messages not yet reported to the user."""
        told, self.learner.notes = self.learner.notes, []
        self._journal.notes += told
        return told

    def keep_present(self) -> None:
        """Save the current weights in the middle of an epoch; also as the best if there is none yet."""
        with run_state.writing(self.files, self._journal.epoch):
            self._checkpoint(self.files.last)
            if self._journal.best is None:
                self._checkpoint(self.files.best)

    def _save(self, is_best: bool) -> None:
        """Write all files, the state last: a run interrupted before it repeats the epoch and writes the same files."""
        with run_state.writing(self.files, self._journal.epoch):
            if is_best:
                self._checkpoint(self.files.best)
            self._checkpoint(self.files.last)
            run_state.save_history(self.files, self._journal.history)
            self._save_state()

    def _save_state(self) -> None:
        self._journal.micro, self._journal.scaler = self.learner.micro, self.learner.scaler_state()
        self._journal.planned = self.settings.epochs
        run_state.save_state(self.files, self.learner.model, self.learner.optimizer, self._journal, self._identity)

    def _checkpoint(self, path: Path) -> None:
        described: Any = self.learner.model.settings
        latest = self._journal.history[-1] if self._journal.history else None
        said = {"epoch": self._journal.epoch, "step": self.course.steps, "scores": latest.scores if latest else {}}
        info = CheckpointInfo(
            model=described,
            preprocessing=self.recipe.preprocessing,
            provenance={**self._provenance, "trained": said},
        )
        save_checkpoint(path, self.learner.model, info)

    def outcome(self) -> Finished:
        """The result of the run."""
        is_finished = self._journal.epoch >= self.settings.epochs
        best = self._journal.best.score if self._journal.best else None
        if self._start is not None and best is not None and best < self._start:
            said = (
                f"no epoch beat the starting weights: the best epoch scores {best:.3f}, the start {self._start:.3f} on "
                "the same images; the start is the better model"
            )
            self._journal.notes.append(Note("warning", said))
        return outcome(self.files, self._journal, "finished" if is_finished else "early")


def outcome(files: Files, journal: Journal, reason: Literal["finished", "early", "stopped"]) -> Finished:
    """Result and provenance of the run so far."""
    return Finished(
        epochs=journal.epoch,
        best_epoch=journal.best.epoch if journal.best else 0,
        best=_if_there(files.best),
        last=_if_there(files.last),
        reason=reason,
        notes=tuple(journal.notes),
    )


def _if_there(path: Path) -> Path | None:
    return path if path.is_file() else None


def _is_better(scores: Mapping[str, float], best: Epoch | None) -> bool:
    """Whether an epoch has a higher mean score; if nothing is scored, the latest is best."""
    score = mean_score(scores)
    return best is None or best.score is None or score is None or score > best.score


def _means(each: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean of every loss over the steps that have it."""
    names = dict.fromkeys(name for losses in each for name in losses)
    told = {name: [losses[name] for losses in each if name in losses] for name in names}
    return {name: sum(values) / len(values) for name, values in told.items()}
