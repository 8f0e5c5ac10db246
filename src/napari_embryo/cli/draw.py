"""``draw``: embryos with exact ground truth, to try out or supplement training."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from napari_embryo.cli.terminal import console, make_folder, readable_errors, writing
from napari_embryo.notes import counted

Kind = Literal["cleavage", "blastocyst"]


def draw(
    what: Annotated[Kind, typer.Argument(metavar="KIND", help="cleavage (cells and fragments) or blastocyst.")],
    out: Annotated[Path, typer.Option(help="Folder for the images and their masks; created if needed.")],
    count: Annotated[int, typer.Option(help="Number of embryos.", min=1)] = 100,
    size: Annotated[int, typer.Option(help="Height and width in pixels.", min=64, max=4096)] = 384,
    seed: Annotated[
        int, typer.Option(help="Random seed of the first embryo; the same seed draws the same embryos.", min=0)
    ] = 0,
) -> None:
    """Draw embryos with their exact masks, as a folder that ``train --data`` reads.

    Embryos are shown as in an incubator and as under a microscope. A cleavage-stage embryo also has the complete
    outline of every cell.
    """
    from napari_embryo import drawing

    draw_all = drawing.draw_cleavages if what == "cleavage" else drawing.draw_blastocysts
    with readable_errors():
        make_folder(out)
        if any(out.iterdir()):
            raise ValueError(f"{out}: the folder is not empty; name an empty one, so that nothing is mixed up")
        with writing(out):
            draw_all(out, count, (size, size), seed, styles=("incubator", "microscope"))
    console.print(f"{counted(count, 'embryo')} drawn in {out.resolve()}", markup=False)
