"""``preview``: training images as the network sees them."""

from collections.abc import Sequence
from math import ceil, sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from napari_embryo import io
from napari_embryo import recipes as book
from napari_embryo.cli.terminal import check_out_file, console, make_folder, readable_errors, writing
from napari_embryo.cli.train import DataFolders, LayoutOption, RecipeName, absolute, asked_recipe
from napari_embryo.notes import counted

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


def preview(
    recipe: RecipeName,
    out: Annotated[Path, typer.Option(help="PNG file to write.")],
    data: DataFolders = None,
    layout: LayoutOption = None,
    count: Annotated[int, typer.Option(help="Number of images.", min=1, max=400)] = 16,
    start: Annotated[str | None, typer.Option(help="Random seed, instead of the recipe's.")] = None,
) -> None:
    """Draw training images as the network will see them: randomly augmented, with outlined masks."""
    with readable_errors():
        check_out_file(out, ".png")
        changes = {"data.folders": absolute(data), "data.layout": layout, "start": start}
        prepared = book.prepare(asked_recipe(recipe, changes))
        pictures = _augmented(prepared, count)
        make_folder(out.absolute().parent)
        with writing(out):
            io.write_png(out, _sheet(pictures, prepared.recipe.model.classes))
    console.print(prepared.text, markup=False)
    console.print(f"{counted(len(pictures), 'training image')} drawn in {out.resolve()}", markup=False)


def _augmented(prepared: "book.Prepared", count: int) -> "npt.NDArray[np.uint8]":
    from napari_embryo import augment
    from napari_embryo.train import loader

    recipe = prepared.recipe
    visited = loader.visited(prepared.split.train, recipe.data.repeats)
    seed, classes = recipe.training.seed, recipe.model.classes
    return augment.preview(visited, recipe.preprocessing, recipe.augmentation, seed, count, classes)


def _sheet(pictures: "npt.NDArray[np.uint8]", classes: Sequence[str]) -> "npt.NDArray[np.uint8]":
    """All images, with a color key of the classes."""
    from napari_embryo import render

    return render.with_legend(side_by_side(pictures), classes)


def side_by_side(pictures: "npt.NDArray[np.uint8]", gap: int = 4) -> "npt.NDArray[np.uint8]":
    """(N, h, w, 3) -> one image, row by row in a nearly square grid, with gaps."""
    import numpy as np

    columns = ceil(sqrt(len(pictures)))
    rows = ceil(len(pictures) / columns)
    height, width = (side + gap for side in pictures.shape[1:3])
    whole = np.zeros((rows * height - gap, columns * width - gap, 3), np.uint8)
    for i, picture in enumerate(pictures):
        top, left = i // columns * height, i % columns * width
        whole[top : top + height - gap, left : left + width - gap] = picture
    return whole
