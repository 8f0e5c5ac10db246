"""The command line: thin loops over the generators; the only place that prints."""

from typing import Annotated

import typer

from napari_embryo import __version__
from napari_embryo.cli import about, drawing, reproducing, scoring, segmenting, training
from napari_embryo.cli.terminal import console

__all__ = ["app", "main"]

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Segment, explain and measure human embryos; teach the networks your own.",
)


@app.callback(invoke_without_command=True)
def _root(show_version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False) -> None:
    if show_version:
        console.print(f"napari-embryo {__version__}")
        raise typer.Exit


for command in (
    segmenting.segment,
    segmenting.demo,
    training.recipes,
    training.preview,
    training.train,
    scoring.evaluate,
    reproducing.reproduce,
    drawing.draw,
    about.info,
):
    app.command()(command)


def main() -> None:
    """The command ``napari-embryo``."""
    app()
