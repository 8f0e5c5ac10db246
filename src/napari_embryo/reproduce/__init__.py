"""The papers' tables, run again: the same protocol on the data at hand, beside the published numbers.

A finished network is not trained again, and one that was cut off goes on, so that the same command leads to the table
whatever happens on the way.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from napari_embryo import recipes
from napari_embryo.drawing import draw_blastocysts
from napari_embryo.reproduce import regdeeplab, resanet, vqamodal
from napari_embryo.reproduce.engine import Job, PaperTable, from_imagenet, run
from napari_embryo.settings import Device

__all__ = ["FAST_NOTE", "TABLES", "Job", "PaperTable", "draw_embryos", "from_imagenet", "protocol", "run"]

TABLES: dict[str, PaperTable] = {
    "resanet-table1": resanet.TABLE,
    "regdeeplab-table2": regdeeplab.TABLE,
    **vqamodal.TABLES,
}

FAST_NOTE = (
    "Drawn embryos, few and small, and a short training: it tells that everything runs, not how good the networks are."
)

draw_embryos = draw_blastocysts


def protocol(
    table: str,
    folders: Sequence[str],
    out: Path,
    fast: bool = False,
    device: Device = "auto",
    seeds: int = 1,
    epochs: int | None = None,
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
    seeds
        Every network so many times, each from other random numbers, on the same split.
    epochs
        A shorter schedule than the paper's: at most so many of each network.

    Raises
    ------
    ValueError
        When there is no such table, no folder, or several seeds came for a table that tells no spread.
    """
    if table not in TABLES:
        raise ValueError(f"table {table!r} came; there is {', '.join(TABLES)}")
    if fast and folders:
        raise ValueError("--fast draws its own embryos; give either --fast or --data")
    paper = TABLES[table]
    if not fast and not folders:
        raise ValueError(f"no folder of {paper.needed} came; name one with --data, or try --fast")
    if seeds > 1 and not paper.has_spread:
        told = ", ".join(name for name, each in TABLES.items() if each.has_spread)
        raise ValueError(
            f"{seeds} seeds came; {table} has no column for their spread, as have {told}; leave --seeds out"
        )
    drawn = [str(paper.draw(out / "embryos"))] if fast else folders
    found = [str(Path(folder).absolute()) for folder in drawn]
    return tuple(
        _changed(job, seed, epochs)
        for seed in range(seeds)
        for job in paper.jobs(found, out / f"seed{seed}" if seed else out, fast, device)
    )


def _changed(job: Job, seed: int, epochs: int | None) -> Job:
    """By another seed, and shorter."""
    name = f"{job.name}, seed {seed}" if seed else job.name
    own = job.recipe.training.epochs
    most = own if epochs is None or not job.can_be_shorter else min(own, epochs)
    changes = {"training.seed": job.recipe.training.seed + seed, "training.epochs": most}
    return replace(job, name=name, recipe=recipes.changed(job.recipe, changes))
