"""``draw``: embryos with exact truth, to try a training on or to begin one with."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from napari_embryo.cli.terminal import console, make_folder, readable_errors, writing
from napari_embryo.notes import counted

Kind = Literal["cleavage", "blastocyst"]


def draw(
    what: Annotated[Kind, typer.Argument(metavar="KIND", help="cleavage (cells and fragments) or blastocyst.")],
    out: Annotated[Path, typer.Option(help="Folder for the pictures and their masks; made if it is not there.")],
    count: Annotated[int, typer.Option(help="How many.", min=1)] = 100,
    size: Annotated[int, typer.Option(help="Height and width in pixels.", min=64, max=4096)] = 384,
    seed: Annotated[int, typer.Option(help="Of the first; the same seed draws the same embryos.", min=0)] = 0,
) -> None:
    """Draw embryos with their exact masks, as a folder that ``train --data`` reads.

    They come as an incubator and as a microscope would show them. A cleavage-stage embryo also has every cell's
    complete outline.
    """
    from napari_embryo import drawing

    draw_all = drawing.draw_cleavages if what == "cleavage" else drawing.draw_blastocysts
    with readable_errors():
        make_folder(out)
        if any(out.iterdir()):
            raise ValueError(f"{out}: holds files already; name an empty folder, so that nothing is mixed up")
        with writing(out):
            draw_all(out, count, (size, size), seed, styles=("incubator", "microscope"))
    console.print(f"{counted(count, 'embryo')} drawn in {out.resolve()}", markup=False)
