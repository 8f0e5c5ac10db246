"""The command line: thin loops over the generators; the only place that prints."""

from typing import Annotated

import typer

from napari_embryo import __version__
from napari_embryo.cli import batch, demo, draw, evaluate, info, preview, reproduce, segment, train
from napari_embryo.cli.terminal import console

__all__ = ["app", "main"]

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Segment, explain and measure human embryos; train the networks on your own images.",
)


@app.callback(invoke_without_command=True)
def _root(show_version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if show_version:
        console.print(f"napari-embryo {__version__}")
        raise typer.Exit


for command in (
    segment.segment,
    batch.batch,
    demo.demo,
    train.recipes,
    preview.preview,
    train.train,
    evaluate.evaluate,
    reproduce.reproduce,
    draw.draw,
    info.info,
):
    app.command()(command)


def main() -> None:
    """The command ``napari-embryo``."""
    app()
