"""What every command says and how: the console, errors in one line, bars, options that several commands share."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from napari_embryo import problems
from napari_embryo.notes import Note
from napari_embryo.settings import Device

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

console = Console(highlight=False, soft_wrap=True)
errors = Console(highlight=False, soft_wrap=True, stderr=True)

Weights = Annotated[
    str, typer.Option(help="'bundled', the name of a model of yours, or a .safetensors checkpoint of napari-embryo.")
]
DeviceOption = Annotated[Device, typer.Option(help="auto takes the graphics card where there is one.")]


@contextmanager
def readable_errors() -> Iterator[None]:
    """What the user can mend becomes one line and exit code 2."""
    try:
        yield
    except (OSError, ValueError) as error:
        text = _wrong_options(error) if isinstance(error, ValidationError) else str(error)
        complain(text)
        raise typer.Exit(2) from error


def complain(text: str) -> None:
    """One error, on standard error."""
    errors.print(f"error: {text}", style="red", markup=False)


def _wrong_options(error: ValidationError) -> str:
    """In the words of the command line: "--threshold: 2.0 was given; a number below 1 is needed"."""
    return "; ".join(_option(problem) + problems.said(problem) for problem in error.errors())


def _option(problem: "ErrorDetails") -> str:
    """Nothing where options do not fit each other: the message says which."""
    return f"--{'-'.join(map(str, problem['loc'])).replace('_', '-')}: " if problem["loc"] else ""


def make_folder(path: Path) -> None:
    """Make the folder for results, where it is not there yet.

    Raises
    ------
    OSError
        When it cannot be made; says why.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            f"--out {path}: this folder cannot be made ({_why_not(path, error)}); choose another one"
        ) from error


def _why_not(path: Path, error: OSError) -> str:
    files = (each for each in (path, *path.parents) if os.path.isfile(each))  # noqa: PTH113 - pathlib's may raise
    in_the_way = next(files, None)
    if in_the_way is None:
        return _reason(error)
    return "a file stands there" if in_the_way == path else f"{in_the_way} is a file"


def check_out_folder(path: Path) -> None:
    """Whether results can be written in a folder, asked before any work; nothing is left there.

    Raises
    ------
    OSError
        When they cannot; says why.
    """
    missing = [each for each in (path, *path.parents) if not os.path.exists(each)]  # noqa: PTH110 - pathlib's may raise
    try:
        make_folder(path)
        with writing(path), TemporaryFile(dir=path):
            pass
    finally:
        for made in missing:
            with suppress(OSError):
                made.rmdir()


def check_out_file(path: Path, suffix: str) -> None:
    """Whether a file of this ending can be written, asked before any work.

    Raises
    ------
    OSError
        When it cannot; says why.
    ValueError
        When the name has another ending.
    """
    if path.suffix.lower() != suffix:
        raise ValueError(f"--out {path}: a {suffix} file is written; choose a name that ends in {suffix}")
    if path.is_dir():
        raise IsADirectoryError(f"--out {path}: this is a folder; name a file, such as {path / f'name{suffix}'}")
    check_out_folder(path.absolute().parent)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """What the system says when a file cannot be written, with the path and what to do."""
    try:
        yield
    except OSError as error:
        raise OSError(
            f"--out {path}: nothing can be written there ({_reason(error)}); make room or choose another place"
        ) from error


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


def print_notes(notes: Iterable[Note], on: Console = console) -> None:
    """Print what a user should know beside the result, a line each."""
    for note in notes:
        on.print(f"{'note' if note.level == 'info' else 'warning'}: {note.text}", markup=False)


def bar() -> Bar:
    """A bar, or nothing where nobody looks."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Bar(*columns, console=console, transient=True, disable=not console.is_terminal)


def print_table(rows: Sequence[Mapping[str, str]]) -> None:
    """Aligned columns, words to the left and numbers to the right, never cut to the window's width."""
    columns = [[name, *(row[name] for row in rows)] for name in (rows[0] if rows else ())]
    for line in zip(*map(_aligned, columns), strict=True):
        console.print("  ".join(line).rstrip(), markup=False)


def _aligned(column: Sequence[str]) -> list[str]:
    width = max(map(len, column))
    holds_numbers = any(cell[:1].isdigit() for cell in column[1:])
    return [cell.rjust(width) if holds_numbers else cell.ljust(width) for cell in column]
