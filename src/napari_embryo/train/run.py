"""One run: its pictures, its learner, its journal and its files."""

import time
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from napari_embryo.augment import TrainingSet
from napari_embryo.data import Sample
from napari_embryo.image import Progress
from napari_embryo.models.checkpoint import CheckpointInfo
from napari_embryo.models.checkpoint import save as save_checkpoint
from napari_embryo.settings import Recipe
from napari_embryo.train import batches, state
from napari_embryo.train.batches import Batch, Visit
from napari_embryo.train.learner import Learner, NotFiniteError, step_seed
from napari_embryo.train.learning import set_rate
from napari_embryo.train.state import Files, Journal
from napari_embryo.train.values import Epoch, Outcome, Step, mean_score

_WORST = 5

Source = Generator[tuple[list[Visit], Batch], None, None]


class Run:
    """What :func:`napari_embryo.train.train` drives, one step and one epoch at a time.

    Parameters
    ----------
    model, training, validation, recipe, provenance
        As there.
    out
        Folder of its files.
    """

    def __init__(
        self,
        model: nn.Module,
        training: Sequence[Sample],
        validation: Sequence[Sample],
        recipe: Recipe,
        out: Path,
        provenance: Mapping[str, Any],
    ) -> None:
        self.recipe, self.settings, self.files, self._provenance = recipe, recipe.training, Files(out), provenance
        if not training:
            raise ValueError("there is no sample to learn from; give at least one annotated picture")
        if self.settings.patience and not validation:
            raise ValueError("patience needs validation pictures to tell a better epoch; give some or set it to 0")
        self.visited = batches.visited(training, recipe.data.repeats)
        self.validation = validation
        self._judged = TrainingSet(validation, recipe.preprocessing)
        size = min(self.settings.batch_size, len(self.visited))
        self.steps_per_epoch = batches.steps_per_epoch(len(self.visited), size)
        self.learner = Learner(model, self.settings, size)
        self.steps = 0
        self._start: float | None = None
        self._journal = Journal()
        self._identity = state.identity(model, recipe, self.visited, validation)
        state.tidy(self.files)

    @property
    def total(self) -> int:
        """Steps of the whole run."""
        return self.settings.epochs * self.steps_per_epoch

    def begin(self) -> None:
        """Write the files as they are before the first step, so that even a run cut off at once can go on.

        The state comes first: with it alone a run can go on, without it the others would be in the way.
        """
        self._check()
        self._judge_start()
        with state.writing(self.files, 0):
            self.files.history.unlink(missing_ok=True)
            self._save_state()
            self._checkpoint(self.files.best)
            self._checkpoint(self.files.last)

    def _judge_start(self) -> None:
        """What there is to improve on; of random weights nobody asks."""
        if self.recipe.start == "random" or not self.validation:
            return
        _, scores, _ = self._judge()
        self._start = mean_score(scores)
        if self._start is not None:
            said = ", ".join(f"{name} {score:.3f}" for name, score in scores.items())
            self.learner.notes.append(f"before training: {said}; mean {self._start:.3f}")

    def _check(self) -> None:
        """What is refused is refused before a file is in the way of the corrected recipe."""
        first = TrainingSet(self.visited[:1], self.recipe.preprocessing)
        for _, batch in batches.prepared(first, batches.in_order(1, 1)):
            self.learner.check(batch)

    def resume(self) -> None:
        """Go back to the end of the last finished epoch."""
        self._journal = state.load_state(self.files, self.learner.model, self.learner.optimizer, self._identity)
        self.learner.micro = self._journal.micro
        self.learner.notes = [note for note in self.learner.notes if note not in self._journal.notes]
        self.steps = self._journal.epoch * self.steps_per_epoch

    def goes_on(self) -> bool:
        """Whether another epoch is to come."""
        return self._journal.epoch < self.settings.epochs and not self._is_patience_over()

    def _is_patience_over(self) -> bool:
        best = self._journal.best
        patience = self.settings.patience
        return bool(patience) and best is not None and self._journal.epoch - best.epoch >= patience

    def batches(self) -> Source:
        """Those of all epochs to come, prepared ahead."""
        items = TrainingSet(self.visited, self.recipe.preprocessing, self.recipe.augmentation, self.settings.seed)
        first = self._journal.epoch + 1
        visits = (
            batch
            for epoch in range(first, self.settings.epochs + 1)
            for batch in batches.epoch_of_visits(len(self.visited), self.settings.batch_size, self.settings.seed, epoch)
        )
        return batches.prepared(items, visits, self.settings.workers)

    def step(self, source: Source) -> Step:
        """Learn from the next batch."""
        start = time.perf_counter()
        visits, batch = next(source)
        rate = set_rate(self.learner.optimizer, self.settings, self.steps, self.total)
        try:
            losses = self.learner.learn(batch, step_seed(self.settings.seed, self.steps))
        except NotFiniteError as error:
            raise FloatingPointError(self._blame(error, visits, batch)) from error
        self.steps += 1
        return Step(self._journal.epoch + 1, losses, rate, time.perf_counter() - start)

    def _blame(self, error: NotFiniteError, visits: Sequence[Visit], batch: Batch) -> str:
        names = [self.visited[i].name for _, i in visits]
        guilty = [names[i] for i in self.learner.culprits(batch)]
        whose = f"of {', '.join(guilty)}" if guilty else f"of none of the batch {', '.join(names)} on its own"
        number = self.steps % self.steps_per_epoch + 1
        return (
            f"{error} in epoch {self._journal.epoch + 1}, step {number}; it is that {whose}. Look at them, or "
            f"lower the learning rate. {self.files.last.name} is that of epoch {self._journal.epoch}"
        )

    def finish_epoch(self, steps: Sequence[Step]) -> Epoch:
        """Judge the network on the validation pictures and write everything."""
        start = time.perf_counter()
        validation, scores, worst = self._judge()
        epoch = Epoch(
            epoch=self._journal.epoch + 1,
            train={name: sum(step.losses[name] for step in steps) / len(steps) for name in steps[0].losses},
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

    def _judge(self) -> tuple[dict[str, float], dict[str, float], tuple[tuple[str, float], ...]]:
        """Mean losses, mean scores, and the worst pictures; a class that is nowhere known has no score."""
        if not self.validation:
            return {}, {}, ()
        visits = batches.in_order(len(self.validation), self.settings.batch_size)
        sums: dict[str, float] = {}
        scores: list[dict[str, Tensor]] = []
        known = 0
        for _, batch in batches.prepared(self._judged, visits):
            weight = int(batch["known"].sum())
            losses, each = self.learner.judge(batch)
            sums = {name: sums.get(name, 0.0) + loss * weight for name, loss in losses.items()}
            known += weight
            scores.append(each)
        tables = {name: torch.cat([s[name] for s in scores]) for name in scores[0]}
        means = {name: values.nanmean().item() for name, values in tables.items() if not values.isnan().all()}
        return {name: total / max(1, known) for name, total in sums.items()}, means, self._worst(tables)

    def _worst(self, tables: Mapping[str, Tensor]) -> tuple[tuple[str, float], ...]:
        each = torch.stack(list(tables.values())).nanmean(0).tolist()
        names = (f"{sample.source}/{sample.name}" for sample in self.validation)
        named = [(name, score) for name, score in zip(names, each, strict=True) if score == score]
        return tuple(sorted(named, key=lambda pair: pair[1])[:_WORST])

    def progress(self, message: str, item: Step | Epoch | str) -> Progress:
        """How far it is."""
        return Progress(self.steps, self.total, message, item)

    def tell_notes(self) -> list[str]:
        """What a user was not told yet."""
        told, self.learner.notes = self.learner.notes, []
        self._journal.notes += told
        return told

    def keep_present(self) -> None:
        """As it is in the middle of an epoch; the best one too, where there is no other."""
        with state.writing(self.files, self._journal.epoch):
            self._checkpoint(self.files.last)
            if self._journal.best is None:
                self._checkpoint(self.files.best)

    def _save(self, is_best: bool) -> None:
        """The state comes last: a run cut off before it does the epoch again and writes the same files."""
        with state.writing(self.files, self._journal.epoch):
            if is_best:
                self._checkpoint(self.files.best)
            self._checkpoint(self.files.last)
            state.save_history(self.files, self._journal.history)
            self._save_state()

    def _save_state(self) -> None:
        self._journal.micro = self.learner.micro
        state.save_state(self.files, self.learner.model, self.learner.optimizer, self._journal, self._identity)

    def _checkpoint(self, path: Path) -> None:
        described: Any = self.learner.model.settings
        latest = self._journal.history[-1] if self._journal.history else None
        said = {"epoch": self._journal.epoch, "step": self.steps, "scores": latest.scores if latest else {}}
        info = CheckpointInfo(
            model=described,
            preprocessing=self.recipe.preprocessing,
            provenance={**self._provenance, "trained": said},
        )
        save_checkpoint(path, self.learner.model, info)

    def outcome(self) -> Outcome:
        """How it ended."""
        is_finished = self._journal.epoch >= self.settings.epochs
        best = self._journal.best.score if self._journal.best else None
        if self._start is not None and best is not None and best < self._start:
            self._journal.notes.append(
                f"no epoch came up to the start: the best scores {best:.3f}, the start {self._start:.3f} on the same "
                "pictures; the start is the better model"
            )
        return outcome(self.files, self._journal, "finished" if is_finished else "early")


def outcome(files: Files, journal: Journal, reason: Literal["finished", "early", "stopped"]) -> Outcome:
    """What a run came to."""
    return Outcome(
        epochs=journal.epoch,
        best_epoch=journal.best.epoch if journal.best else 0,
        best=files.best,
        last=files.last,
        reason=reason,
        notes=tuple(journal.notes),
    )


def _is_better(scores: Mapping[str, float], best: Epoch | None) -> bool:
    """A higher mean score; where nothing is scored, the latest."""
    score = mean_score(scores)
    return best is None or best.score is None or score is None or score > best.score
