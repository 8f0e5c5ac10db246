"""Reproduce the papers' tables: the same protocol on the data at hand, beside the published numbers.

A finished network is not trained again and an interrupted one is resumed, so the same command leads to the table
even after interruptions.
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
    "A few small drawn embryos and a short training: this shows that everything runs, not how good the networks are."
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
    """The jobs of a table, in the order in which they are trained.

    Parameters
    ----------
    table
        Name of the table, one of :data:`TABLES`.
    folders
        Folders of annotated images.
    out
        Output folder; gets one folder per network.
    fast
        Use a few small drawn embryos and a few epochs instead, to check that everything runs.
    device
        Device to train on.
    seeds
        Train every network this many times with different random numbers, on the same split.
    epochs
        Upper limit of the epochs of each network, for a shorter schedule than the paper's.

    Raises
    ------
    ValueError
        If there is no such table, no folder was given, or several seeds were given for a table without a spread.
    """
    if table not in TABLES:
        raise ValueError(f"there is no table {table!r}; choose one of {', '.join(TABLES)}")
    if fast and folders:
        raise ValueError("--fast draws its own embryos; give either --fast or --data")
    paper = TABLES[table]
    if not fast and not folders:
        raise ValueError(f"no folder of {paper.needed} was given; name one with --data, or try --fast")
    if seeds > 1 and not paper.has_spread:
        told = ", ".join(name for name, each in TABLES.items() if each.has_spread)
        raise ValueError(
            f"{seeds} seeds were given, but {table} has no column for their spread (only {told} do); omit --seeds"
        )
    drawn = [str(paper.draw(out / "embryos"))] if fast else folders
    found = [str(Path(folder).absolute()) for folder in drawn]
    return tuple(
        _changed(job, seed, epochs)
        for seed in range(seeds)
        for job in paper.jobs(found, out / f"seed{seed}" if seed else out, fast, device)
    )


def _changed(job: Job, seed: int, epochs: int | None) -> Job:
    """The job with another seed and fewer epochs."""
    name = f"{job.name}, seed {seed}" if seed else job.name
    own = job.recipe.training.epochs
    most = own if epochs is None or not job.can_be_shorter else min(own, epochs)
    changes = {"training.seed": job.recipe.training.seed + seed, "training.epochs": most}
    return replace(job, name=name, recipe=recipes.changed(job.recipe, changes))
