"""``reproduce``: a table of a paper."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from napari_embryo import io
from napari_embryo.cli.terminal import (
    DeviceOption,
    check_out_folder,
    complain,
    console,
    print_table,
    readable_errors,
    writing,
)
from napari_embryo.cli.terminal import bar as make_bar
from napari_embryo.image import Progress

if TYPE_CHECKING:
    import pandas as pd

REPRODUCTIONS = Path("napari-embryo-reproductions")


def reproduce(
    what: Annotated[
        str,
        typer.Argument(
            metavar="TABLE",
            help="resanet-table1: U-Net and ResA-Net, one per class; regdeeplab-table2: experiments A to E of "
            "AttnRegDeepLab and its baselines; vqamodal-table1, -table2, -table3: Mask R-CNN's mask head against "
            "shape codes, the same with ASN, and an ablation.",
        ),
    ],
    data: Annotated[list[Path] | None, typer.Option("--data", help="Folder of annotated images; repeatable.")] = None,
    out: Annotated[Path | None, typer.Option(help=f"Folder for the networks. Default: {REPRODUCTIONS}/TABLE.")] = None,
    fast: Annotated[
        bool,
        typer.Option("--fast", help="Use a few small drawn embryos, to check within minutes that everything runs."),
    ] = False,
    device: DeviceOption = "auto",
    backbone: Annotated[
        Path | None, typer.Option(help="ImageNet ResNet-50 (.safetensors) for the encoders; random weights by default.")
    ] = None,
    encoder: Annotated[
        Literal["v1", "v1.5"], typer.Option(help="Origin of the backbone: torchvision (v1.5) or He et al. (v1).")
    ] = "v1.5",
    seeds: Annotated[
        int,
        typer.Option(
            min=1, max=20, help="Number of runs of each network, to estimate the spread (tables of vqamodal)."
        ),
    ] = 1,
    epochs: Annotated[
        int | None,
        typer.Option(min=1, help="Upper limit of epochs of each network, for less than the paper's protocol."),
    ] = None,
) -> None:
    """Train the networks of a paper's table by its protocol, and print our numbers beside the published ones.

    The same command resumes an interrupted run. Tables of vqamodal with the same --out share networks.
    """
    from napari_embryo import reproduce as papers

    folder = out or REPRODUCTIONS / (f"{what}-fast" if fast else what)
    with readable_errors():
        check_out_folder(folder)
        named = [str(d.absolute()) for d in data or []]
        protocol = papers.protocol(what, named, folder, fast, device, seeds, epochs)
        protocol = papers.from_imagenet(protocol, backbone.absolute(), encoder) if backbone else protocol
        try:
            scores = _reproduced(papers.run(protocol))
        except (ArithmeticError, MemoryError) as error:
            complain(f"{error}\nThe same command resumes from the last finished epoch")
            raise typer.Exit(1) from error
    paper = papers.TABLES[what]
    rows = paper.table(scores).to_dict("records")
    print_table(rows)
    with readable_errors(), writing(folder):
        io.write_csv_atomic(folder / "table.csv", rows)
    short = "" if epochs is None else f"Shorter than the paper's protocol: at most {epochs} epochs of each network."
    told = (papers.FAST_NOTE if fast else "", short, "" if backbone else paper.without_backbone, *paper.notes)
    for note in filter(None, told):
        console.print(note, markup=False)
    console.print(f"networks, splits, scores and table.csv are in {folder.resolve()}", markup=False)


def _reproduced(steps: Any) -> "pd.DataFrame":
    with make_bar() as bar:
        task = bar.add_task("networks", total=None)
        try:
            while True:
                progress: Progress = next(steps)
                if progress.item is None:
                    bar.update(task, completed=progress.done, total=progress.total, description=progress.message)
                else:
                    bar.console.print(progress.message, markup=False)
        except StopIteration as end:
            scores: pd.DataFrame = end.value
            return scores
