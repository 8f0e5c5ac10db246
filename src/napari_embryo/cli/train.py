"""``train`` and ``recipes``: train a network on annotated images."""

import os
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.progress import Progress as Bar

from napari_embryo import library
from napari_embryo import recipes as book
from napari_embryo.cli import train_stream
from napari_embryo.cli.terminal import bar as make_bar
from napari_embryo.cli.terminal import (
    check_out_folder,
    complain,
    console,
    print_notes,
    readable_errors,
)
from napari_embryo.cli.train_stream import FAILURES, add_best, follow
from napari_embryo.families import FAMILIES
from napari_embryo.image import Progress
from napari_embryo.notes import Note, counted
from napari_embryo.settings import Device, Layout, Recipe
from napari_embryo.stream import Epoch, Finished, Step

TRAININGS = Path("napari-embryo-trainings")
STOPPED = 130
"""Exit code that shells expect of a program ended by Ctrl-C."""

_RECIPE_HELP = "A .yaml file, or a bundled recipe: see 'napari-embryo recipes'."
RecipeName = Annotated[str, typer.Argument(metavar="RECIPE", help=_RECIPE_HELP)]
DataFolders = Annotated[
    list[Path] | None, typer.Option("--data", help="Folder of annotated images, instead of the recipe's; repeatable.")
]
LayoutOption = Annotated[
    Layout | None, typer.Option(help="Layout of the annotations, instead of the recipe's; auto detects it.")
]


def train(
    recipe: Annotated[
        str | None, typer.Argument(metavar="RECIPE", help=f"{_RECIPE_HELP} With --resume, the one in --out by default.")
    ] = None,
    data: DataFolders = None,
    layout: LayoutOption = None,
    out: Annotated[Path | None, typer.Option(help=f"Folder of this training run. Default: {TRAININGS}/NAME.")] = None,
    device: Annotated[Device | None, typer.Option(help="Instead of the recipe's.")] = None,
    devices: Annotated[
        int | None, typer.Option(help="Number of graphics cards that train together, instead of the recipe's.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Instead of the recipe's.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the model, instead of the recipe's.")] = None,
    start: Annotated[
        str | None,
        typer.Option(
            help="What to start from, instead of the recipe's: bundled, imagenet, random, one of your models, a file."
        ),
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(help="ImageNet ResNet-50 (.safetensors) for a recipe with start: imagenet.")
    ] = None,
    shape_code: Annotated[
        str | None,
        typer.Option(help="Shape code for cells, instead of the recipe's: one of your models, or a file."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume the training run in the folder.")] = False,
    stream: Annotated[
        bool, typer.Option("--stream", help="For programs: write JSON lines; read pause, resume and stop.")
    ] = False,
) -> None:
    """Train a network and add the best weights to your models. Ctrl-C stops after the step and keeps best and last."""
    changes = {
        "data.folders": absolute(data),
        "data.layout": layout,
        "training.device": device,
        "training.devices": devices,
        "training.epochs": epochs,
        "name": name,
        "start": _from_here(start),
        "backbone": _from_here(backbone),
        "shape_code": _from_here(shape_code),
    }
    if stream:
        raise typer.Exit(train_stream.train(lambda: _order(recipe, out, changes, resume), resume))
    with readable_errors():
        asked, folder = _order(recipe, out, changes, resume)
        prepared = book.prepare(asked)
    console.print(prepared.text, markup=False)
    raise typer.Exit(_train(prepared, folder, resume))


def recipes(
    show: Annotated[str, typer.Option(help="Print this recipe, to be copied and changed.", metavar="NAME")] = "",
) -> None:
    """List the bundled recipes, or print one."""
    with readable_errors():
        if show:
            typer.echo(book.text(show), nl=False)
            return
        width = max(map(len, book.names()))
        for name in book.names():
            first = book.text(name).splitlines()[0].removeprefix("# ")
            console.print(f"{name:<{width}}  {first}", markup=False)


def _order(recipe: str | None, out: Path | None, changes: Mapping[str, Any], resume: bool) -> tuple[Recipe, Path]:
    """The recipe and the folder, after checking that training can start or resume there."""
    if resume:
        asked, folder = _begun(recipe, out, changes)
    elif recipe is None:
        raise ValueError("no recipe was given; name a .yaml file, or one that ships (see: napari-embryo recipes)")
    else:
        asked = asked_recipe(recipe, changes)
        folder = out or TRAININGS / asked.name
        book.check_is_new(folder)
    _check_devices(asked)
    check_out_folder(folder)
    return asked, folder


def _check_devices(asked: Recipe) -> None:
    """Check the devices before any image is read; a single device needs no torch for this."""
    if asked.training.devices > 1:
        from napari_embryo import train

        train.check_devices(asked.training)


def _begun(recipe: str | None, out: Path | None, changes: Mapping[str, Any]) -> tuple[Recipe, Path]:
    """The run to resume, with the recipe in its folder or one that is named again."""
    if recipe is not None:
        asked = asked_recipe(recipe, changes)
        folder = out or TRAININGS / asked.name
        _check_is_begun(folder)
        return (asked if changes["training.epochs"] is not None else _as_long_as(folder, asked)), folder
    if out is None:
        raise ValueError("--resume was given without a folder; name that of the training run with --out, or its recipe")
    _check_is_begun(out)
    return asked_recipe(str(out / "recipe.yaml"), changes), out


def _check_is_begun(folder: Path) -> None:
    if not (folder / "recipe.yaml").is_file():
        raise FileNotFoundError(
            f"{folder}: there is no training to resume (no recipe.yaml); name the folder of one with --out, or "
            "start one without --resume"
        )


def _as_long_as(folder: Path, asked: Recipe) -> Recipe:
    """The recipe with the number of epochs of the run in the folder."""
    epochs, others = book.read(folder / "recipe.yaml").training.epochs, asked.training.epochs
    if epochs != others:
        said = f"up to epoch {epochs}, as when this training began; the recipe says {others}; --epochs changes it"
        print_notes([Note("info", said)])
    return book.changed(asked, {"training.epochs": epochs})


def asked_recipe(recipe: str, changes: Mapping[str, Any]) -> Recipe:
    """The recipe with the changes given on the command line."""
    given = {name: value for name, value in changes.items() if value is not None}
    return book.changed(book.read(recipe), given, "command line")


def absolute(folders: list[Path] | None) -> list[str] | None:
    return [str(folder.absolute()) for folder in folders] if folders else None


def _from_here(weights: str | None) -> str | None:
    """Absolute path of a file, since a run is resumed with the recipe in its folder."""
    if weights is None or not weights.endswith(library.SUFFIX) or not Path(weights).is_file():
        return weights
    return str(Path(weights).absolute())


def _train(prepared: "book.Prepared", out: Path, resume: bool) -> int:
    """Train with output for people; return the exit code."""
    try:
        with make_bar() as bar, _interruptible() as interrupted:
            tell = Teller(bar)
            outcome = follow(book.run(prepared, out, resume), out, interrupted.is_set, tell)
            tell.rest(outcome.notes)
    except (OSError, ValueError) as error:
        complain(str(error))
        return 2
    except FAILURES as error:
        complain(f"{error}\nThe checkpoints of the previous epochs are in {out.resolve()}")
        return 1
    if interrupted.is_set():
        _say_how_to_go_on(outcome, out.resolve(), prepared.recipe)
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
    """Let Ctrl-C stop after the step; a second one ends at once."""
    interrupted = threading.Event()

    def ask(number: int, frame: Any) -> None:
        interrupted.set()
        signal.signal(signal.SIGINT, before)
        # The console may be in the middle of a line and would print it twice.
        os.write(2, b"stopping after this step ... (Ctrl-C again: at once)\n")

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)


class Teller:
    """Show a progress bar with the losses, a line per epoch, and notes."""

    def __init__(self, bar: Bar) -> None:
        self.bar, self.task = bar, bar.add_task("loading the network", total=None)
        self._told: set[Note] = set()

    def __call__(self, progress: Progress) -> None:
        match progress.item:
            case Step() as step:
                text = f"epoch {step.epoch}: {said(step.losses)}"
                self.bar.update(self.task, completed=progress.done, total=progress.total, description=escape(text))
            case Epoch() as epoch:
                self.bar.console.print(epoch_line(epoch), markup=False)
            case Note() as note:
                self.rest([note])

    def rest(self, notes: Iterable[Note]) -> None:
        """Print the notes that were not printed yet."""
        for note in notes:
            if note not in self._told:
                self._told.add(note)
                print_notes([note], self.bar.console)


def epoch_line(epoch: Epoch) -> str:
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


def _say_how_to_go_on(outcome: Finished, folder: Path, recipe: Recipe) -> None:
    lines = [
        f"stopped after {counted(outcome.epochs, 'complete epoch')}; the best and the last weights are in {folder}",
        f"resume it: napari-embryo train --resume --out {folder}",
    ]
    if outcome.best is not None:
        lines.append(f"or take the best weights so far and {_use_of(str(outcome.best), recipe)}")
    for line in lines:
        console.print(line, markup=False)


def _say_how_to_use(outcome: Finished, added: Path | None, recipe: Recipe) -> None:
    why = "no improvement for a long time" if outcome.reason == "early" else "done"
    how_long = counted(outcome.epochs, "epoch")
    console.print(f"{why} after {how_long}; the best was epoch {outcome.best_epoch}", markup=False)
    if outcome.best is not None:
        console.print(f"best weights: {outcome.best.resolve()}", markup=False)
    if added is not None:
        model = added.name.removesuffix(library.SUFFIX)
        console.print(_use_of(model, recipe), markup=False)


def _use_of(model: str, recipe: Recipe) -> str:
    """How to use the new model; not every model draws masks."""
    family = FAMILIES[recipe.model.family]
    return family.caveat or f"use it: {family.use.format(model=model)}"
