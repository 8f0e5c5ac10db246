"""No file that we write says where it was made: no folder, and so no user's or patient's name in one."""

import json
from pathlib import Path

import numpy as np
import pytest

from napari_embryo import data, io
from napari_embryo.data.cells_writer import write_cells
from napari_embryo.families import BLASTOCYST_CLASSES
from napari_embryo.io import without_folders
from napari_embryo.synthetic import draw_cleavage

SECRET = "anna_muster"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("/home/ada/x y/clinic 3/R13.tif", "R13.tif"),
        (r"C:\Users\Anna Muster\a.tif", "a.tif"),
        ("D:/Anna/a.tif", "a.tif"),
        (r"\\server\share\Anna\a.tif", "a.tif"),
        ("~/data/a.png", "a.png"),
        ("file:///home/ada/a.tif", "a.tif"),
        ("frame 3 of /a/b/c.tif: broken", "frame 3 of c.tif: broken"),
        ("images/a.png", "images/a.png"),
        ("um/px, 5/6 and 1 / 2 / 3", "um/px, 5/6 and 1 / 2 / 3"),
        ("https://napari.org/stable/a", "https://napari.org/stable/a"),
        ("4AA /good", "4AA /good"),
    ],
)
def test_absolute_paths_become_names(text: str, kept: str) -> None:
    assert without_folders({"a": [(text, 3)]}) == {"a": [(kept, 3)]}


def written_text(folder: Path) -> str:
    """Everything in the files of a folder and their names, in the encodings in use."""
    raw = b"\n".join((path.name.encode() + path.read_bytes()) for path in folder.rglob("*") if path.is_file())
    return raw.decode("latin-1").lower()


def test_files_do_not_say_where_they_were_made(tmp_path: Path) -> None:
    home, out = tmp_path / SECRET / "in", tmp_path / "out"
    home.mkdir(parents=True)
    out.mkdir()
    embryo = draw_cleavage(0, 2, shape=(96, 96))
    io.write_png(home / "day2.png", embryo.image)
    pixels, about, _ = io.to_napari(io.read_image(home / "day2.png"))
    assert SECRET in str(about["metadata"]["source"])
    io.write_layer(out / "day2.ome.tif", pixels, about, "image")
    data.save_sample(out, "day2", embryo.image, embryo.cells.any(0).astype(int), BLASTOCYST_CLASSES, about["metadata"])
    for number, mask in enumerate(embryo.cells, start=1):
        cell = {"result": "cells", "run": "1", "cell": number, "source": about["metadata"]["source"]}
        layer = {**about, "metadata": {**about["metadata"], **cell}}
        write_cells(out / f"{number}.ome.tif", [(mask.astype(np.uint8) * number, layer, "labels")])
    assert len(list(out.iterdir())) == 1 + 3 + 2 * len(embryo.cells)
    assert SECRET not in written_text(out)
    assert json.loads((out / "1_cells.json").read_text())["info"]["source"] == "day2.png"
