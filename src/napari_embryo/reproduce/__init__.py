"""The papers' tables, run again: the same protocol on the data at hand, beside the published numbers.

A finished network is not trained again, and one that was cut off goes on, so that the same command leads to the table
whatever happens on the way.
"""

from collections.abc import Sequence
from pathlib import Path

from napari_embryo.drawing import draw_blastocysts
from napari_embryo.reproduce import regdeeplab, resanet
from napari_embryo.reproduce.engine import Job, PaperTable, from_imagenet, run
from napari_embryo.settings import Device

__all__ = ["FAST_NOTE", "TABLES", "Job", "PaperTable", "draw_embryos", "from_imagenet", "protocol", "run"]

TABLES: dict[str, PaperTable] = {"resanet-table1": resanet.TABLE, "regdeeplab-table2": regdeeplab.TABLE}

FAST_NOTE = (
    "Drawn embryos, few and small, and a short training: it tells that everything runs, not how good the networks are."
)

draw_embryos = draw_blastocysts


def protocol(
    table: str, folders: Sequence[str], out: Path, fast: bool = False, device: Device = "auto"
) -> tuple[Job, ...]:
    """What a table compares, in the order in which it is trained.

    Parameters
    ----------
    table
        One of :data:`TABLES`.
    folders
        Of annotated pictures.
    out
        Gets a folder per network.
    fast
        On a few small drawn embryos instead, and a few epochs: whether it all runs.
    device
        To train on.

    Raises
    ------
    ValueError
        When there is no such table, or no folder.
    """
    if table not in TABLES:
        raise ValueError(f"table {table!r} came; there is {', '.join(TABLES)}")
    if fast and folders:
        raise ValueError("--fast draws its own embryos; give either --fast or --data")
    paper = TABLES[table]
    if not fast and not folders:
        raise ValueError(f"no folder of {paper.needed} came; name one with --data, or try --fast")
    found = [str(paper.draw(out / "embryos"))] if fast else folders
    return paper.jobs([str(Path(folder).absolute()) for folder in found], out, fast, device)
