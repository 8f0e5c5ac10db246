"""What every command says and how: the console, errors in one line, bars, options that several commands share."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from napari_embryo.settings import Device

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
    """In the words of the command line: "--threshold: 2.0 came; input should be less than 1"."""
    return "; ".join(
        f"--{'-'.join(map(str, problem['loc'])).replace('_', '-')}: {problem['input']!r} came; "
        f"{problem['msg'][:1].lower()}{problem['msg'][1:]}"
        for problem in error.errors()
    )


def make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = "a file stands there" if path.is_file() else (error.strerror or str(error))
        raise OSError(f"--out {path}: this folder cannot be made ({reason}); choose another one") from error


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
