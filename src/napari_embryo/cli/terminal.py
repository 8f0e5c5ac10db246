"""Output shared by all commands: console, one-line errors, progress bars, and common options."""

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
    str, typer.Option(help="'bundled', the name of one of your models, or a .safetensors checkpoint of napari-embryo.")
]
DeviceOption = Annotated[Device, typer.Option(help="auto uses the graphics card if there is one.")]


@contextmanager
def readable_errors() -> Iterator[None]:
    """Turn errors that the user can fix into one line and exit code 2."""
    try:
        yield
    except (OSError, ValueError) as error:
        text = _wrong_options(error) if isinstance(error, ValidationError) else str(error)
        complain(text)
        raise typer.Exit(2) from error


def complain(text: str) -> None:
    """Print an error on standard error."""
    errors.print(f"error: {text}", style="red", markup=False)


def _wrong_options(error: ValidationError) -> str:
    """In the words of the command line: "--threshold: 2.0 was given; a number below 1 is needed"."""
    return "; ".join(_option(problem) + problems.said(problem) for problem in error.errors())


def _option(problem: "ErrorDetails") -> str:
    """The option concerned; empty if options contradict each other, since the message names them."""
    return f"--{'-'.join(map(str, problem['loc'])).replace('_', '-')}: " if problem["loc"] else ""


def make_folder(path: Path) -> None:
    """Create the folder for results if needed.

    Raises
    ------
    OSError
        If it cannot be created; the message says why.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            f"--out {path}: this folder cannot be created ({_why_not(path, error)}); choose another one"
        ) from error


def _why_not(path: Path, error: OSError) -> str:
    files = (each for each in (path, *path.parents) if os.path.isfile(each))  # noqa: PTH113 - pathlib's may raise
    in_the_way = next(files, None)
    if in_the_way is None:
        return _reason(error)
    return "a file of that name exists" if in_the_way == path else f"{in_the_way} is a file"


def check_out_folder(path: Path) -> None:
    """Check before any work that results can be written to a folder; leaves nothing there.

    Raises
    ------
    OSError
        If they cannot; the message says why.
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
    """Check before any work that a file with this suffix can be written.

    Raises
    ------
    OSError
        If it cannot; the message says why.
    ValueError
        If the name has another suffix.
    """
    if path.suffix.lower() != suffix:
        raise ValueError(f"--out {path}: a {suffix} file is written; choose a name that ends in {suffix}")
    if path.is_dir():
        raise IsADirectoryError(f"--out {path}: this is a folder; name a file, such as {path / f'name{suffix}'}")
    check_out_folder(path.absolute().parent)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """The system's error when a file cannot be written, with the path and what to do."""
    try:
        yield
    except OSError as error:
        raise OSError(
            f"--out {path}: cannot write there ({_reason(error)}); free some space or choose another location"
        ) from error


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


def print_notes(notes: Iterable[Note], on: Console = console) -> None:
    """Print what a user should know beside the result, a line each."""
    for note in notes:
        on.print(note.line, markup=False)


def bar() -> Bar:
    """A progress bar, or nothing if the output is not a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Bar(*columns, console=console, transient=True, disable=not console.is_terminal)


def print_table(rows: Sequence[Mapping[str, str]]) -> None:
    """Aligned columns, text to the left and numbers to the right, never truncated to the window's width."""
    columns = [[name, *(row[name] for row in rows)] for name in (rows[0] if rows else ())]
    for line in zip(*map(_aligned, columns), strict=True):
        console.print("  ".join(line).rstrip(), markup=False)


def _aligned(column: Sequence[str]) -> list[str]:
    width = max(map(len, column))
    holds_numbers = any(cell[:1].isdigit() for cell in column[1:])
    return [cell.rjust(width) if holds_numbers else cell.ljust(width) for cell in column]
