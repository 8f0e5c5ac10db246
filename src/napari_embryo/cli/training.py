"""``train``, ``recipes`` and ``preview``: teach a network from annotated pictures."""

import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import ceil, sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.progress import Progress as Bar

from napari_embryo import io, library
from napari_embryo import recipes as book
from napari_embryo.cli import streaming
from napari_embryo.cli.following import FAILURES, add_best, follow
from napari_embryo.cli.terminal import bar as make_bar
from napari_embryo.cli.terminal import complain, console, make_folder, readable_errors
from napari_embryo.image import Progress
from napari_embryo.settings import Device, Recipe, SegmentSettings

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from napari_embryo.train import Epoch, Outcome

TRAININGS = Path("napari-embryo-trainings")
STOPPED = 130
"""What shells expect of a program that Ctrl-C has ended."""

RecipeName = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A .yaml file, or one that ships: see 'napari-embryo recipes'.")
]
DataFolders = Annotated[
    list[Path] | None, typer.Option("--data", help="Folder of annotated pictures, instead of the recipe's; repeatable.")
]


def train(
    recipe: RecipeName,
    data: DataFolders = None,
    out: Annotated[
        Path | None, typer.Option(help=f"Folder of this training; {TRAININGS}/NAME where nothing is said.")
    ] = None,
    device: Annotated[Device | None, typer.Option(help="Instead of the recipe's.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Instead of the recipe's.")] = None,
    name: Annotated[str | None, typer.Option(help="Of the model, instead of the recipe's.")] = None,
    start: Annotated[
        str | None, typer.Option(help="Instead of the recipe's: bundled, imagenet, random, a model of yours, a file.")
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(help="ImageNet ResNet-50 (.safetensors) for a recipe with start: imagenet.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the training in the folder.")] = False,
    stream: Annotated[
        bool, typer.Option("--stream", help="For programs: JSON lines out; pause, resume, stop in.")
    ] = False,
) -> None:
    """Train a network; the best weights become a model of yours. Ctrl-C stops after the step; best and last stay."""
    changes = {
        "data.folders": _absolute(data),
        "training.device": device,
        "training.epochs": epochs,
        "name": name,
        "start": start,
        "backbone": backbone,
    }
    if stream:
        raise typer.Exit(streaming.train(lambda: _asked(recipe, changes), lambda asked: _folder(out, asked), resume))
    with readable_errors():
        asked = _asked(recipe, changes)
        prepared = book.prepare(asked)
    console.print(prepared.text, markup=False)
    raise typer.Exit(_train(prepared, _folder(out, asked), resume))


def recipes(
    show: Annotated[str, typer.Option(help="Print this recipe, to copy and change it.", metavar="NAME")] = "",
) -> None:
    """List the recipes that ship with the program, or print one."""
    with readable_errors():
        if show:
            typer.echo(book.text(show), nl=False)
            return
        width = max(map(len, book.names()))
        for name in book.names():
            first = book.text(name).splitlines()[0].removeprefix("# ")
            console.print(f"{name:<{width}}  {first}", markup=False)


def preview(
    recipe: RecipeName,
    out: Annotated[Path, typer.Option(help="PNG file to write.")],
    data: DataFolders = None,
    count: Annotated[int, typer.Option(help="How many pictures.", min=1, max=400)] = 16,
    start: Annotated[str | None, typer.Option(help="Instead of the recipe's.")] = None,
) -> None:
    """Draw training pictures as the network will meet them: altered at random, masks outlined."""
    with readable_errors():
        changes = {"data.folders": _absolute(data), "start": start}
        prepared = book.prepare(_asked(recipe, changes))
        make_folder(out.absolute().parent)
        pictures = _augmented(prepared, count)
        io.write_png(out, side_by_side(pictures))
    console.print(prepared.text, markup=False)
    console.print(f"{len(pictures)} training pictures drawn in {out.resolve()}", markup=False)


def _asked(recipe: str, changes: Mapping[str, Any]) -> Recipe:
    """The recipe with what the command line says otherwise."""
    given = {name: value for name, value in changes.items() if value is not None}
    return book.changed(book.read(recipe), given, "command line")


def _absolute(folders: list[Path] | None) -> list[str] | None:
    return [str(folder.absolute()) for folder in folders] if folders else None


def _folder(out: Path | None, asked: Recipe) -> Path:
    return out or TRAININGS / asked.name


def _train(prepared: "book.Prepared", out: Path, resume: bool) -> int:
    """Train before a person's eyes; returns the exit code."""
    try:
        with make_bar() as bar, _interruptible() as interrupted:
            outcome = follow(book.run(prepared, out, resume), out, interrupted.is_set, Teller(bar))
    except (OSError, ValueError) as error:
        complain(str(error))
        return 2
    except FAILURES as error:
        complain(f"{error}\nThe checkpoints of the epochs before are in {out.resolve()}")
        return 1
    if interrupted.is_set():
        _say_how_to_go_on(outcome, prepared.recipe)
        return STOPPED
    try:
        added = add_best(outcome, prepared.recipe.name)
    except OSError as error:
        complain(f"the training is done, but {error}")
        return 1
    _say_how_to_use(outcome, added, prepared.recipe)
    return 0


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """Ctrl-C asks to stop after the step; a second one ends at once."""
    interrupted = threading.Event()

    def ask(number: int, frame: Any) -> None:
        interrupted.set()
        signal.signal(signal.SIGINT, before)
        # The console may be in the middle of a line, and would say it twice.
        os.write(2, b"stopping after this step ... (Ctrl-C again: at once)\n")

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)


class Teller:
    """A bar with the losses, a line per epoch, notes."""

    def __init__(self, bar: Bar) -> None:
        self.bar, self.task = bar, bar.add_task("loading the network", total=None)

    def __call__(self, progress: Progress) -> None:
        from napari_embryo.train import Epoch, Step

        match progress.item:
            case Step() as step:
                text = f"epoch {step.epoch}: {said(step.losses)}"
                self.bar.update(self.task, completed=progress.done, total=progress.total, description=escape(text))
            case Epoch() as epoch:
                self.bar.console.print(epoch_line(epoch), markup=False)
            case str() as note:
                self.bar.console.print(f"note: {note}", markup=False)


def epoch_line(epoch: "Epoch") -> str:
    """``epoch 3: loss 0.412, validation 0.398 | IoU ICM 0.831, IoU TE 0.780 | 12.1 s, best so far``."""
    validation = f", validation {sum(epoch.validation.values()):.3f}" if epoch.validation else ""
    scores = f" | {said(epoch.scores)}" if epoch.scores else ""
    best = ", best so far" if epoch.best else ""
    return (
        f"epoch {epoch.epoch}: loss {sum(epoch.train.values()):.3f}{validation}{scores} | {epoch.seconds:.1f} s{best}"
    )


def said(numbers: Mapping[str, float]) -> str:
    """``bce 0.312, dice 0.220``."""
    return ", ".join(f"{name} {number:.3f}" for name, number in numbers.items())


def _say_how_to_go_on(outcome: "Outcome", recipe: Recipe) -> None:
    for line in (
        f"stopped after {outcome.epochs} whole epochs; best and last weights are in {outcome.last.resolve().parent}",
        "go on: the same command with --resume",
        f"use the best: {_use(str(outcome.best), recipe)}",
    ):
        console.print(line, markup=False)


def _use(weights: str, recipe: Recipe) -> str:
    family = recipe.model.family
    named = "" if family == SegmentSettings().family else f"--family {family} "
    return f"napari-embryo segment {named}--weights {weights} IMAGES"


def _say_how_to_use(outcome: "Outcome", added: Path | None, recipe: Recipe) -> None:
    why = "no better epoch for long" if outcome.reason == "early" else "done"
    console.print(f"{why} after {outcome.epochs} epochs; the best was epoch {outcome.best_epoch}", markup=False)
    console.print(f"best weights: {outcome.best.resolve()}", markup=False)
    if added is not None:
        model = added.name.removesuffix(library.SUFFIX)
        console.print(f"use them: {_use(model, recipe)}", markup=False)


def _augmented(prepared: "book.Prepared", count: int) -> "npt.NDArray[np.uint8]":
    from napari_embryo import augment
    from napari_embryo.train import batches

    recipe = prepared.recipe
    visited = batches.visited(prepared.split.train, recipe.data.repeats)
    return augment.preview(visited, recipe.preprocessing, recipe.augmentation, recipe.training.seed, count)


def side_by_side(pictures: "npt.NDArray[np.uint8]", gap: int = 4) -> "npt.NDArray[np.uint8]":
    """(N, h, w, 3) -> one picture, row by row, nearly as many rows as columns, with a gap between."""
    import numpy as np

    columns = ceil(sqrt(len(pictures)))
    rows = ceil(len(pictures) / columns)
    height, width = (side + gap for side in pictures.shape[1:3])
    whole = np.zeros((rows * height - gap, columns * width - gap, 3), np.uint8)
    for i, picture in enumerate(pictures):
        top, left = i // columns * height, i % columns * width
        whole[top : top + height - gap, left : left + width - gap] = picture
    return whole
