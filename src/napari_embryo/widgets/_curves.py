"""Curves of a training run: losses on top, scores below, in the window's colors."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from matplotlib.axes import Axes
from matplotlib.backend_bases import Event, MouseEvent
from matplotlib.backends.backend_qtagg import FigureCanvasQTAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from qtpy.QtCore import QPoint
from qtpy.QtGui import QCursor
from qtpy.QtWidgets import QToolTip

from napari_embryo.render import color_of

REDRAWN_EVERY = 1.0
"""Seconds between redraws for steps; an epoch is drawn at once."""

DRAWN = 2000
"""Largest number of steps drawn; beyond that, some are left out."""

FONT = 8
_OTHERS = ("#e69f00", "#56b4e9", "#009e73", "#cc79a7", "#f0e442", "#d55e00")


@dataclass(frozen=True)
class Point:
    """One epoch: sum of losses, scores by name, and whether it is the best so far."""

    epoch: int
    train: float
    validation: float
    scores: Mapping[str, float]
    best: bool


@dataclass
class History:
    """The events of a run so far."""

    epochs: list[Point] = field(default_factory=list)
    steps: list[tuple[float, float]] = field(default_factory=list)

    @property
    def best(self) -> Point | None:
        """The best epoch so far."""
        return next((point for point in reversed(self.epochs) if point.best), None)

    @property
    def last(self) -> float:
        """Progress in epochs; at least 1."""
        return max([1.0, *(place for place, _ in self.steps[-1:]), *(point.epoch for point in self.epochs[-1:])])

    def nearest(self, epoch: float) -> Point | None:
        """The epoch nearest to a position on the axis."""
        return min(self.epochs, key=lambda point: abs(point.epoch - epoch), default=None)


def said(point: Point) -> str:
    """One epoch in a line."""
    losses = f"Epoch {point.epoch}: loss {point.train:.3g}, validation {point.validation:.3g}"
    return ", ".join([losses, *scores_said(point)])


def scores_said(point: Point) -> Sequence[str]:
    """Such as "IoU ICM 0.812" for every score."""
    return [f"{name} {score:.3f}" for name, score in point.scores.items()]


class Curves(FigureCanvasQTAgg):
    """Live curves; hovering shows the numbers of an epoch.

    Parameters
    ----------
    colors
        Colors of the window: ``background``, ``text`` and ``secondary``.
    """

    def __init__(self, colors: Mapping[str, str]) -> None:
        super().__init__(Figure(figsize=(3, 3.6), layout="constrained"))  # type: ignore[no-untyped-call]
        self.history, self._colors, self._drawn = History(), dict(colors), 0.0
        self.losses, self.scores = self.figure.subplots(2, 1, sharex=True)
        self.setMinimumSize(200, 320)
        self.mpl_connect("motion_notify_event", self._tell)
        self.redraw()

    def clear(self) -> None:
        """Start a new run."""
        self.history = History()
        self.redraw()

    def add_step(self, epoch: float, loss: float) -> None:
        """Add the loss of a step; ``epoch`` is its fractional position."""
        self.history.steps.append((epoch, loss))
        if time.monotonic() - self._drawn > REDRAWN_EVERY:
            self.redraw()

    def add_epoch(self, point: Point) -> None:
        self.history.epochs.append(point)
        self.redraw()

    def set_colors(self, colors: Mapping[str, str]) -> None:
        """Adopt the window's theme."""
        self._colors = dict(colors)
        self.redraw()

    def redraw(self) -> None:
        self._drawn = time.monotonic()
        for axes in (self.losses, self.scores):
            axes.clear()
        self._draw_losses()
        self._draw_scores()
        self.figure.set_facecolor(self._colors["background"])
        for axes in (self.losses, self.scores):
            self._dress(axes)
        self.scores.set_xlim(0, 1.02 * self.history.last)
        self.draw_idle()  # type: ignore[no-untyped-call]

    def _draw_losses(self) -> None:
        points = self.history.epochs
        if steps := self.history.steps[:: 1 + len(self.history.steps) // DRAWN]:
            self.losses.plot(*zip(*steps, strict=True), color=self._colors["secondary"], lw=0.8)
        epochs = [point.epoch for point in points]
        self.losses.plot(epochs, [p.train for p in points], "o-", ms=3, color="#56b4e9", label="training")
        self.losses.plot(epochs, [p.validation for p in points], "o-", ms=3, color="#e69f00", label="validation")
        self.losses.set_ylabel("loss")

    def _draw_scores(self) -> None:
        points = self.history.epochs
        names = list(dict.fromkeys(name for point in points for name in point.scores))
        for place, name in enumerate(names):
            known = [(p.epoch, p.scores[name]) for p in points if name in p.scores]
            self.scores.plot(*zip(*known, strict=True), "o-", ms=3, color=_color(name, place), label=name)
        if best := self.history.best:
            self.scores.axvline(best.epoch, color=self._colors["text"], lw=0.8, ls=":", label="best")
        self.scores.set(ylim=(0, 1.02), xlabel="epoch", ylabel="score")

    def _dress(self, axes: Axes) -> None:
        text = self._colors["text"]
        axes.set_facecolor(self._colors["background"])
        axes.tick_params(colors=text, labelsize=FONT)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        for label in (axes.xaxis.label, axes.yaxis.label):
            label.set(color=text, fontsize=FONT)
        for spine in axes.spines.values():
            spine.set_edgecolor(self._colors["secondary"])
        named = [line for line in axes.get_lines() if _is_named(line)]
        if self.history.epochs and named:
            axes.legend(handles=named, fontsize=FONT - 1, labelcolor=text, framealpha=0, ncols=2)

    def _tell(self, event: Event) -> None:
        if not isinstance(event, MouseEvent) or event.xdata is None:
            return
        if point := self.history.nearest(event.xdata):
            QToolTip.showText(QCursor.pos() + QPoint(12, 12), said(point))


def _is_named(line: Line2D) -> bool:
    return not str(line.get_label()).startswith("_")


def _color(name: str, place: int) -> str:
    """Use the color of a class's masks for its curve."""
    red, green, blue = color_of(name.rpartition(" ")[2])
    known = (red, green, blue) != color_of("")
    return f"#{red:02x}{green:02x}{blue:02x}" if known else _OTHERS[place % len(_OTHERS)]
