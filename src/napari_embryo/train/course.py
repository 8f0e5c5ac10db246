"""The part of a run that every device executes: which samples are learned, in which order and how fast."""

import time
from collections.abc import Generator, Sequence
from typing import Any

import torch

from napari_embryo.data import Sample
from napari_embryo.models import Network
from napari_embryo.settings import Recipe
from napari_embryo.stream import Step
from napari_embryo.train import loader
from napari_embryo.train.ddp import ALONE, Team
from napari_embryo.train.engine import Learner, NotFiniteError, step_seed
from napari_embryo.train.loader import Batch, Visit, items_for
from napari_embryo.train.optim import set_rate

Source = Generator[tuple[list[Visit], Batch], None, None]


class Course:
    """A learner and its batches.

    Parameters
    ----------
    model
        Trained in place.
    training, recipe
        As in :func:`napari_embryo.train.train`.
    team
        The devices that train together.

    Attributes
    ----------
    visited
        Every sample, as many times as an epoch visits it.
    steps
        Number of steps done.
    """

    def __init__(self, model: Network, training: Sequence[Sample], recipe: Recipe, team: Team = ALONE) -> None:
        self.recipe, self.settings, self.team = recipe, recipe.training, team
        self.visited = loader.visited(training, recipe.data.repeats)
        size = min(self.settings.batch_size, len(self.visited))
        self.steps_per_epoch = loader.steps_per_epoch(len(self.visited), size)
        self.learner = Learner(model, self.settings, size, team)
        self.steps = 0

    @property
    def total(self) -> int:
        """Number of steps in the whole run."""
        return self.settings.epochs * self.steps_per_epoch

    @property
    def epoch(self) -> int:
        """The epoch in progress or the next one, counted from 1."""
        return self.steps // self.steps_per_epoch + 1

    def level(self) -> None:
        """Bring every device to the state of the first one."""
        learner, is_first = self.learner, self.team.rank == 0
        if self.team.size == 1:
            return
        self.team.call()
        said = self.team.share(self._state() if is_first else {})
        if not is_first:
            self.steps = said["steps"]
            learner.model.load_state_dict(said["model"])
            learner.optimizer.load_state_dict(said["optimizer"])
            learner.load_scaler(said["scaler"])

    def _state(self) -> dict[str, Any]:
        learner = self.learner
        return {
            "steps": self.steps,
            "model": _on_processor(learner.model.state_dict()),
            "optimizer": _on_processor(learner.optimizer.state_dict()),
            "scaler": learner.scaler_state(),
        }

    def batches(self) -> Source:
        """Part of this device in every batch still to come, prepared ahead of time."""
        recipe, seed = self.recipe, self.settings.seed
        items = items_for(self.learner.model, self.visited, recipe.preprocessing, recipe.augmentation, seed)
        visits = (
            list(self.team.part(batch))
            for epoch in range(self.epoch, self.settings.epochs + 1)
            for batch in loader.epoch_of_visits(len(self.visited), self.settings.batch_size, self.settings.seed, epoch)
        )
        return loader.prepared(items, visits, self.settings.workers)

    def step(self, source: Source) -> Step:
        """Train on the next batch.

        Raises
        ------
        FloatingPointError
            If a loss is not finite; the message names the images.
        """
        start = time.perf_counter()
        self.team.call()
        with self.team.at_once():
            visits, batch = next(source)
        rate = set_rate(self.learner.optimizer, self.settings, self.steps, self.total)
        try:
            losses = self.learner.learn(batch, step_seed(self.settings.seed, self.steps, self.team.rank))
        except NotFiniteError as error:
            raise FloatingPointError(self._blame(error, visits, batch)) from error
        epoch = self.epoch
        self.steps += 1
        return Step(
            done=self.steps,
            total=self.total,
            epoch=epoch,
            losses=losses,
            learning_rate=rate,
            seconds=time.perf_counter() - start,
        )

    def _blame(self, error: NotFiniteError, visits: Sequence[Visit], batch: Batch) -> str:
        mine = [self.visited[i].name for _, i in visits]
        names = [name for each in self.team.gather(mine) for name in each]
        culprits = [mine[i] for i in self.learner.culprits(batch)]
        guilty = [name for each in self.team.gather(culprits) for name in each]
        whose = f"of {', '.join(guilty)}" if guilty else f"of none of the batch {', '.join(names)} on its own"
        number = self.steps % self.steps_per_epoch + 1
        return (
            f"{error} in epoch {self.epoch}, step {number}; it is that {whose}. Look at them, or "
            f"lower the learning rate. last.safetensors is that of epoch {self.epoch - 1}"
        )


def _on_processor(state: Any) -> Any:
    """A copy of nested dicts and lists with every tensor on the processor, where all processes can read it."""
    if isinstance(state, torch.Tensor):
        return state.detach().cpu()
    if isinstance(state, dict):
        return {name: _on_processor(value) for name, value in state.items()}
    return [_on_processor(value) for value in state] if isinstance(state, list) else state
