"""The command line as a user meets it: files, table, messages, exit codes.

A ResA-Net of random weights, its head set so that it finds something in every picture, stands in for the trained one.
"""

import csv
import functools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from napari_embryo import __version__, cli, geometry, io, library, measure, models
from napari_embryo.families import BLASTOCYST_CLASSES, RegDeepLabSettings, ResANetSettings, UNetSettings
from napari_embryo.geometry import network_input
from napari_embryo.models import checkpoint
from napari_embryo.models.resanet import ResANet
from napari_embryo.predict import choose_device
from napari_embryo.settings import Preprocessing
from napari_embryo.synthetic import draw_blastocyst

PRE = Preprocessing(height=64, width=64)
SHAPE = (64, 96)


def _set_head(model: ResANet, picture: np.ndarray) -> None:
    """ICM where one feature is low, ZP where it is high, TE nowhere: three classes that never meet."""
    plan = geometry.plan(picture.shape, PRE.net_hw)
    features: list[torch.Tensor] = []
    handle = model.head.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0][0]))
    with torch.inference_mode():
        model(torch.from_numpy(network_input(picture, plan, PRE))[None])
    handle.remove()
    channel = int(features[0].std((1, 2)).argmax())
    low, high = np.quantile(features[0][channel].numpy(), (0.3, 0.7))
    steep = 20 / float(high - low)
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.weight[:, channel, 0, 0] = torch.tensor([-steep, 0, steep])
        model.head.bias.copy_(torch.tensor([steep * low, -20, -steep * high]))


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    settings = ResANetSettings()
    model = models.build(settings).eval()
    assert isinstance(model, ResANet)
    _set_head(model, draw_blastocyst(0, SHAPE).image)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    checkpoint.save(path, model, checkpoint.CheckpointInfo(model=settings, preprocessing=PRE))
    return path


@pytest.fixture(scope="module", autouse=True)
def _loaded_once() -> Iterator[None]:
    """Rebuilding the network for every command would be most of this file's time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "load", functools.cache(checkpoint.load))
        yield


def png(path: Path, seed: int = 0, shape: tuple[int, int] = SHAPE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(draw_blastocyst(seed, shape).image).save(path)
    return path


@pytest.fixture(scope="session")
def embryos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    png(folder / "early.png", 1)
    png(folder / "late.png", 2)
    return folder


def run(*words: object) -> Result:
    return CliRunner().invoke(cli.app, [str(word) for word in words])


def segment(weights: Path, out: Path, *words: object) -> Result:
    return run("segment", *words, "--weights", weights, "--out", out, "--device", "cpu")


def table(out: Path) -> list[dict[str, str]]:
    with (out / "measurements.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


ABOUT_ALL = (".napari-embryo", "contact_sheet.html", "measurements.csv", "measurements.xlsx", "run.json")


def results(*names: str, maps: bool = False) -> list[str]:
    endings = ("labels.ome.tif", "overlay.png", *(("attention.ome.tif",) if maps else ()))
    return sorted([*(f"{name}_{ending}" for name in names for ending in endings), *ABOUT_ALL])


# --- what comes out -------------------------------------------------------------------------------------------------


def test_a_folder(weights: Path, embryos: Path, tmp_path: Path) -> None:
    done = segment(weights, tmp_path / "out", embryos)
    assert done.exit_code == 0, done.output
    assert files(tmp_path / "out") == results("early", "late")
    assert "2 images done, 0 failed" in done.output
    assert "Research use only" in done.output
    rows = table(tmp_path / "out")
    assert list(rows[0]) == ["image", "file", *measure.COLUMNS, "weights", "date"]
    assert [(r["image"], r["class"], r["label"]) for r in rows] == [
        (name, kind, str(i + 1)) for name in ("early", "late") for i, kind in enumerate(BLASTOCYST_CLASSES)
    ]


def test_areas_in_the_table_are_the_pixels_in_the_labels(weights: Path, embryos: Path, tmp_path: Path) -> None:
    segment(weights, tmp_path, embryos)
    for row in table(tmp_path):
        labels = tifffile.imread(tmp_path / f"{row['image']}_labels.ome.tif")
        assert (labels.dtype, labels.shape) == (np.uint8, SHAPE)
        assert int(row["area_px"]) == (labels == int(row["label"])).sum()
        assert row["area_um2"] == ""
    assert {row["image"] for row in table(tmp_path) if int(row["area_px"]) > 0} == {"early", "late"}


@pytest.mark.parametrize(
    ("pixel_size", "known", "expected"),
    [(0.5, None, 0.25), (None, 0.2, 0.04), (0.5, 0.2, 0.25), (None, 84.7, None), (0.5, 84.7, 0.25), (None, None, None)],
)
def test_areas_in_micrometers(
    weights: Path, tmp_path: Path, pixel_size: float | None, known: float | None, expected: float | None
) -> None:
    """What the user says comes first; a size that no embryo has is not used."""
    path = tmp_path / "a.ome.tif"
    io.write_ome_tiff(path, draw_blastocyst(1, SHAPE).image, "YX", pixel_size_um=known and (known, known))
    words = () if pixel_size is None else ("--pixel-size", pixel_size)
    done = segment(weights, tmp_path / "out", path, *words)
    assert done.exit_code == 0
    assert ("the file says" in done.output) == (known == 84.7 or (known is not None and pixel_size is not None))
    for row in table(tmp_path / "out"):
        assert (row["area_um2"] == "") == (expected is None)
        if expected is not None:
            assert float(row["area_um2"]) == pytest.approx(int(row["area_px"]) * expected)


@pytest.mark.parametrize(("maps", "names"), [("", None), ("SA1", ("SA1",)), ("LA2, SA4", ("LA2", "SA4"))])
def test_only_the_maps_asked_for_are_written(
    weights: Path, embryos: Path, tmp_path: Path, maps: str, names: tuple[str, ...] | None
) -> None:
    assert segment(weights, tmp_path, embryos / "early.png", "--maps", maps).exit_code == 0
    written = tmp_path / "early_attention.ome.tif"
    assert written.exists() == (names is not None)
    if names:
        attention = io.read_ome_tiff(written)
        assert (attention.names, attention.axes, attention.data.dtype) == (names, "CYX", np.float32)


def incubator(folder: Path, runs: int, broken: int | None = None) -> Path:
    for i in range(1, runs + 1):
        path = png(folder / f"D2013.01.28_S0717_I132_WELL7_RUN{i}.png", i)
        if i == broken:
            path.write_bytes(path.read_bytes()[:200])
    return folder


def test_a_time_lapse_is_one_result_with_a_row_per_frame(weights: Path, tmp_path: Path) -> None:
    done = segment(weights, tmp_path / "out", incubator(tmp_path / "in", 3))
    name = "D2013.01.28_S0717_I132_WELL7"
    assert (done.exit_code, files(tmp_path / "out")) == (0, results(name))
    assert tifffile.imread(tmp_path / "out" / f"{name}_labels.ome.tif").shape == (3, *SHAPE)
    assert [row["frame"] for row in table(tmp_path / "out")] == [str(t) for t in range(3) for _ in range(3)]


def test_a_broken_frame_is_named_and_the_others_are_done(weights: Path, tmp_path: Path) -> None:
    done = segment(weights, tmp_path / "out", incubator(tmp_path / "in", 4, broken=3))
    assert done.exit_code == 1
    assert "RUN3.png" in done.output
    assert {row["image"] for row in table(tmp_path / "out")} == {"D2013.01.28_S0717_I132_WELL7"}
    assert len(table(tmp_path / "out")) == 3 * 3


# --- names ----------------------------------------------------------------------------------------------------------


def test_maps_of_a_run_before_do_not_stay_beside_other_masks(weights: Path, embryos: Path, tmp_path: Path) -> None:
    assert segment(weights, tmp_path, embryos, "--maps", "usual").exit_code == 0
    assert files(tmp_path) == results("early", "late", maps=True)
    assert segment(weights, tmp_path, embryos / "late.png").exit_code == 0
    assert files(tmp_path) == [name for name in results("early", "late", maps=True) if name != "late_attention.ome.tif"]


def test_the_table_keeps_the_rows_of_other_images(weights: Path, embryos: Path, tmp_path: Path) -> None:
    """Also of a time-lapse, which has columns of its own; measured again, an image's rows are replaced."""
    segment(weights, tmp_path / "out", embryos / "early.png", incubator(tmp_path / "in", 2))
    before = table(tmp_path / "out")
    done = segment(weights, tmp_path / "out", embryos, "--threshold", "0.4")
    assert "2 images done, 0 failed" in done.output
    rows = table(tmp_path / "out")
    film = [row for row in before if row["frame"]]
    assert [row for row in rows if row["frame"]] == film != []
    assert [row["image"] for row in rows if not row["frame"]] == ["early"] * 3 + ["late"] * 3


def test_what_is_done_is_not_done_again(weights: Path, embryos: Path, tmp_path: Path) -> None:
    assert segment(weights, tmp_path, embryos).exit_code == 0
    done = segment(weights, tmp_path, embryos)
    assert (done.exit_code, "2 images done (2 of them before, unchanged)" in done.output) == (0, True)


def test_a_table_of_another_origin_is_kept(weights: Path, embryos: Path, tmp_path: Path) -> None:
    (tmp_path / "measurements.csv").write_text("name;area\n")
    done = segment(weights, tmp_path, embryos / "late.png")
    assert "note: an existing measurements.csv of another origin was renamed to measurements_before" in done.output
    assert (tmp_path / "measurements_before.csv").read_text() == "name;area\n"
    assert {row["image"] for row in table(tmp_path)} == {"late"}


def test_six_digits_are_enough(weights: Path, embryos: Path, tmp_path: Path) -> None:
    assert segment(weights, tmp_path, embryos, "--pixel-size", "0.3141592653589793").exit_code == 0
    for row in table(tmp_path):
        assert float(row["area_um2"]) == pytest.approx(int(row["area_px"]) * 0.3141592653589793**2, rel=1e-5)
        assert len(row["area_um2"].replace(".", "").strip("0")) <= 6


@pytest.mark.parametrize("names", [("embryo.png", "embryo.png"), ("Embryo.png", "embryo.png")])
def test_images_of_one_name_do_not_overwrite_each_other(weights: Path, tmp_path: Path, names: tuple[str, str]) -> None:
    """Nor where the system does not tell capital letters apart."""
    first, second = (png(tmp_path / folder / name, i) for i, (folder, name) in enumerate(zip("ab", names, strict=True)))
    assert segment(weights, tmp_path / "out", first, second).exit_code == 0
    assert len({name.casefold() for name in files(tmp_path / "out")} - set(ABOUT_ALL)) == 4
    assert len({row["image"].casefold() for row in table(tmp_path / "out")}) == 2


def test_two_folders(weights: Path, embryos: Path, tmp_path: Path) -> None:
    png(tmp_path / "other" / "early.png", 5)
    done = segment(weights, tmp_path / "out", embryos, tmp_path / "other")
    assert done.exit_code == 0
    assert {row["image"] for row in table(tmp_path / "out")} == {
        f"{embryos.name}/early",
        f"{embryos.name}/late",
        "other/early",
    }
    assert files(tmp_path / "out" / "other") == ["early_labels.ome.tif", "early_overlay.png"]


# --- fragments ------------------------------------------------------------------------------------------------------


def fragment_weights(path: Path, ratio: float = 0.5, **settings: object) -> Path:
    """A small network that finds fragments and embryo everywhere and tells one ratio."""
    torch.manual_seed(0)
    described = RegDeepLabSettings.model_validate({"encoder": "v1", **settings})
    model = models.build(described).eval()
    with torch.no_grad():
        model.head.join.weight.zero_()
        model.head.join.bias.copy_(torch.tensor([3.0, 3.0]))
        if model.regression is not None:
            model.regression.start_at(ratio)
    checkpoint.save(path, model, checkpoint.CheckpointInfo(model=described, preprocessing=PRE))
    return path


@pytest.fixture(scope="session")
def fragments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything is a fragment, and the ratio told is 12 %."""
    return fragment_weights(tmp_path_factory.mktemp("fragments") / "visual.safetensors", 0.12)


def test_fragments_with_ratio_and_grade(fragments: Path, embryos: Path, tmp_path: Path) -> None:
    done = segment(fragments, tmp_path, embryos, "--family", "regdeeplab", "--maps", "usual")
    assert done.exit_code == 0, done.output
    assert files(tmp_path) == results("early", "late", maps=True)
    rows = [row for row in table(tmp_path) if row["class"] == "fragment"]
    assert [row["label"] for row in rows] == ["1", "1"]
    assert list(rows[0]) == ["image", "file", *measure.COLUMNS, *measure.RATIO_COLUMNS, "weights", "date"]
    for row in rows:
        labels = tifffile.imread(tmp_path / f"{row['image']}_labels.ome.tif")
        assert int(row["area_px"]) == (labels == 1).sum()
        assert (float(row["ratio_from_mask"]), row["grade_from_mask"]) == (1.0, "D")
        assert (float(row["ratio_regressed"]), row["grade"]) == (pytest.approx(0.12, abs=1e-3), "B")
        assert row["grades_apart"] == "2"
    assert io.read_ome_tiff(tmp_path / "early_attention.ome.tif").names == ("AG",)
    assert [line for line in done.output.splitlines() if line.startswith("warning: ")]
    assert "2 grades apart" in done.output
    assert "Research use only" in done.output


def test_ratio_and_grade_stand_below_the_picture(fragments: Path, embryos: Path, tmp_path: Path) -> None:
    segment(fragments, tmp_path, embryos / "early.png")
    shown = np.asarray(Image.open(tmp_path / "early_overlay.png"))
    lines = (shown.shape[0] - SHAPE[0]) / 22
    assert lines == 3
    assert all((shown[SHAPE[0] + 22 * i :][:22] > 100).any() for i in range(3))


def test_a_film_has_a_ratio_per_frame(fragments: Path, tmp_path: Path) -> None:
    done = segment(fragments, tmp_path / "out", incubator(tmp_path / "in", 3))
    rows = [row for row in table(tmp_path / "out") if row["class"] == "fragment"]
    assert [(row["frame"], row["grade"]) for row in rows] == [(str(frame), "B") for frame in range(3)]
    assert "in 3 of 3 images: frame 0, frame 1, frame 2" in " ".join(done.output.split())


def test_other_weights_can_tell_the_ratio(fragments: Path, embryos: Path, tmp_path: Path) -> None:
    other = fragment_weights(tmp_path / "quantification.safetensors", 0.88)
    done = segment(fragments, tmp_path / "out", embryos / "early.png", "--ratio-weights", other)
    assert done.exit_code == 0, done.output
    row = table(tmp_path / "out")[0]
    assert (float(row["ratio_regressed"]), row["grade"]) == (pytest.approx(0.88, abs=1e-3), "D")
    assert "grades apart" not in done.output


def test_ratio_weights_that_tell_no_ratio_are_refused(
    weights: Path, fragments: Path, embryos: Path, tmp_path: Path
) -> None:
    mute = fragment_weights(tmp_path / "mute.safetensors", regression=False)
    for given, says in ((mute, "no regression head"), (weights, "but 'regdeeplab' was requested")):
        done = segment(fragments, tmp_path / "out", embryos, "--ratio-weights", given)
        assert done.exit_code == 2
        assert says in " ".join(done.output.split())
    done = segment(weights, tmp_path / "out", embryos, "--ratio-weights", fragments)
    assert done.exit_code == 2
    assert "estimates no ratio" in " ".join(done.output.split())


# --- what goes wrong ------------------------------------------------------------------------------------------------


def test_a_broken_file_is_named_with_the_reason_and_the_others_are_done(
    weights: Path, embryos: Path, tmp_path: Path
) -> None:
    """In a process of its own, as from a shell."""
    folder = tmp_path / "in"
    for name in ("early.png", "late.png"):
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes((embryos / name).read_bytes())
    (folder / "notes.png").write_text("this is no picture")
    words = ["segment", folder, "--weights", weights, "--out", tmp_path / "out", "--device", "cpu", "--maps", ""]
    done = subprocess.run(
        [sys.executable, "-m", "napari_embryo", *map(str, words)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    (failure,) = [line for line in done.stdout.splitlines() if line.startswith("failed:")]
    assert "notes.png" in failure
    assert "damaged" in failure
    assert "2 images done, 1 failed" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert len(table(tmp_path / "out")) == 6


def too_small(path: Path) -> Path:
    Image.fromarray(np.zeros((8, 9), np.uint8)).save(path / "speck.png")
    return path / "speck.png"


def with_nan(path: Path) -> Path:
    np.save(path / "hole.npy", np.full(SHAPE, np.nan, np.float32))
    return path / "hole.npy"


def empty_file(path: Path) -> Path:
    (path / "void.png").touch()
    return path / "void.png"


def empty_folder(path: Path) -> Path:
    (path / "bare").mkdir()
    return path / "bare"


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (too_small, ("speck", "8 x 9 pixels, but needs at least 16 x 16")),
        (with_nan, ("hole", "NaN or infinite")),
        (empty_file, ("void.png",)),
        (empty_folder, ("bare", "no image in this folder")),
        (lambda path: path / "nowhere.png", ("nowhere.png", "no such file")),
    ],
    ids=["small", "nan", "zero bytes", "empty folder", "missing"],
)
def test_what_cannot_be_done_is_named_once(
    weights: Path, embryos: Path, tmp_path: Path, make: object, says: tuple[str, ...]
) -> None:
    bad = make(tmp_path)  # type: ignore[operator]
    done = segment(weights, tmp_path / "out", bad, embryos / "early.png", "--maps", "")
    assert done.exit_code == 1
    (failure,) = [line for line in done.output.splitlines() if line.startswith("failed:")]
    assert [words for words in says if words not in failure] == []
    assert failure.count(f"{bad.stem}: ") <= 1
    assert {row["image"] for row in table(tmp_path / "out")} == {"early"}
    assert not [name for name in files(tmp_path / "out") if name.startswith(bad.stem) or name.endswith(".part")]


def test_a_folder_that_may_not_be_read(
    weights: Path, embryos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked, listed = tmp_path / "locked", os.scandir
    locked.mkdir()

    def scandir(path: str) -> object:
        if Path(path) == locked:
            raise PermissionError(13, "Permission denied", path)
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    done = segment(weights, tmp_path / "out", locked, embryos / "early.png")
    assert done.exit_code == 1
    assert "locked: this folder cannot be read (Permission denied)" in done.output
    assert len(table(tmp_path / "out")) == 3


def foreign(path: Path) -> Path:
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(2)}, path / "other.safetensors")
    return path / "other.safetensors"


def pickled(path: Path) -> Path:
    torch.save({"x": torch.zeros(2)}, path / "model.pt")
    return path / "model.pt"


def cut_short(path: Path) -> Path:
    whole = foreign(path)
    whole.write_bytes(whole.read_bytes()[:40])
    return whole


def unet(path: Path) -> Path:
    settings = UNetSettings(base_channels=4)
    checkpoint.save(
        path / "unet.safetensors", models.build(settings), checkpoint.CheckpointInfo(model=settings, preprocessing=PRE)
    )
    return path / "unet.safetensors"


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (foreign, "another program"),
        (pickled, "pickle"),
        (cut_short, "invalid safetensors file"),
        (lambda path: path / "gone.safetensors", "no such checkpoint"),
    ],
    ids=["foreign", "pickle", "cut", "missing"],
)
def test_weights_that_cannot_be_used(embryos: Path, tmp_path: Path, make: object, says: str) -> None:
    bad = make(tmp_path)  # type: ignore[operator]
    done = segment(bad, tmp_path / "out", embryos)
    assert done.exit_code == 2
    assert done.output.startswith("error: ")
    assert bad.name in done.output
    assert says in done.output
    assert "Traceback" not in done.output


@pytest.mark.parametrize(("words", "code"), [((), 0), (("--family", "unet"), 0), (("--family", "resanet"), 2)])
def test_the_weights_say_their_family(embryos: Path, tmp_path: Path, words: tuple[str, ...], code: int) -> None:
    done = segment(unet(tmp_path), tmp_path / "out", embryos, *words)
    assert done.exit_code == code
    if code:
        assert "these are weights of 'unet', but 'resanet' was requested" in done.output


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--maps", "SA1,SA9"), ("SA9", "SA1, SA2")),
        (("--threshold", "2"), ("threshold", "below 1")),
        (("--batch-size", "0"), ("--batch-size: 0 was given", "at least 1")),
        (("--focus", "worst"), ("worst", "best or edf")),
        (("--family", "vgg"), ("family", "resanet")),
        (("--device", "toaster"), ("toaster", "cuda")),
        (("--pixel-size", "-1"), ("pixel-size",)),
        (("--grouping", "pairs"), ("pairs", "separate")),
        (
            ("--family", "vqamodal", "--ratio-weights", "bundled"),
            (
                "error: ratio_weights were given, but the family vqamodal estimates no ratio; leave ratio_weights "
                "empty\n",
            ),
        ),
    ],
)
def test_a_wrong_option_is_explained_before_anything_is_done(
    weights: Path, embryos: Path, tmp_path: Path, words: tuple[str, str], says: tuple[str, ...]
) -> None:
    done = run("segment", embryos, "--weights", weights, "--out", tmp_path / "out", *words)
    assert done.exit_code == 2
    assert [word for word in says if word not in done.output] == []
    assert not (tmp_path / "out").exists() or files(tmp_path / "out") == []


def test_a_device_that_is_not_there(weights: Path, embryos: Path, tmp_path: Path) -> None:
    missing = next((name for name in ("mps", "cuda") if not _usable(name)), "")
    done = run("segment", embryos, "--weights", weights, "--out", tmp_path, "--device", missing)
    assert done.exit_code == 2
    assert f"device '{missing}' cannot be used" in done.output


def _usable(name: str) -> bool:
    try:
        choose_device(name)  # type: ignore[arg-type]
    except ValueError:
        return False
    return True


def test_a_file_stands_where_the_results_should_go(weights: Path, embryos: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    done = segment(weights, tmp_path / "out", embryos)
    assert (done.exit_code, (tmp_path / "out").read_text()) == (2, "mine")
    assert "out: this folder cannot be created (a file of that name exists)" in done.output


def test_nothing_given() -> None:
    done = run("segment")
    assert done.exit_code == 2
    assert "Missing argument" in done.output
    assert "paths" in done.output.lower()


def test_ctrl_c_keeps_what_is_done(
    weights: Path, embryos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    real = measure.measure_masks

    def interrupted(*args: object) -> list[measure.Row]:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(measure.rows, "measure_masks", interrupted)
    done = segment(weights, tmp_path, embryos)
    assert done.exit_code == 130
    assert {row["image"] for row in table(tmp_path)} == {"early"}
    assert "Interrupted: 1 image left. The same command continues with them." in done.output
    assert not list(tmp_path.glob("late*"))
    assert segment(weights, tmp_path, embryos).exit_code == 0
    assert {row["image"] for row in table(tmp_path)} == {"early", "late"}


# --- the other commands ---------------------------------------------------------------------------------------------


def test_info_says_what_a_bug_report_needs() -> None:
    done = run("info")
    assert done.exit_code == 0
    for words in (
        __version__,
        torch.__version__,
        "device cpu",
        "device cuda",
        "device mps",
        "GiB",
        "weights",
        "threads",
    ):
        assert words in done.output, words


def test_version() -> None:
    assert run("--version").output.strip() == f"napari-embryo {__version__}"


def test_demo_draws_segments_and_says_where(
    weights: Path, embryos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "bundled", lambda _: weights)
    monkeypatch.setattr(checkpoint, "bundled", lambda _: weights)
    monkeypatch.setattr(cli.demo, "SAMPLE_SEEDS", (2,))
    checkpoint.load.cache_clear()  # type: ignore[attr-defined]
    done = run("demo", embryos / "early.png", "--no-show", "--out", tmp_path, "--device", "cpu")
    assert done.exit_code == 0, done.output
    assert files(tmp_path) == sorted([*results("blastocyst_2", "early", maps=True), "samples"])
    assert str(tmp_path) in done.output
    sizes = {row["image"]: row["area_um2"] for row in table(tmp_path)}
    assert (sizes["early"], sizes["blastocyst_2"] != "") == ("", True)


def test_demo_with_the_weights_that_ship(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        checkpoint.bundled("resanet")
    except FileNotFoundError as error:
        pytest.skip(str(error))
    monkeypatch.setattr(cli.demo, "SAMPLE_SEEDS", (2,))
    checkpoint.load.cache_clear()  # type: ignore[attr-defined]
    done = run("demo", "--no-show", "--out", tmp_path, "--device", "cpu")
    assert done.exit_code == 0, done.output
    assert files(tmp_path) == sorted([*results("blastocyst_2", maps=True), "samples"])
    assert [row["class"] for row in table(tmp_path) if int(row["area_px"]) > 0] == list(BLASTOCYST_CLASSES)


# --- how files are read -----------------------------------------------------------------------------------------------


def test_frames_of_a_stack_that_does_not_say_so_are_all_measured_and_said(weights: Path, tmp_path: Path) -> None:
    frames = np.stack([draw_blastocyst(seed, SHAPE).image for seed in (1, 2)])
    about = "ImageJ=1.53t\nimages=2\nslices=2\nunit=pixel\n"
    tifffile.imwrite(tmp_path / "film.tif", frames, metadata=None, description=about, byteorder=">")
    done = segment(weights, tmp_path / "out", tmp_path / "film.tif")
    assert "the axis of length 2 is time: the file does not say" in done.output
    assert {(row["frame"], row["file"]) for row in table(tmp_path / "out")} == {("0", "film.tif"), ("1", "film.tif")}
    done = segment(weights, tmp_path / "planes", tmp_path / "film.tif", "--axes", "ZYX")
    assert "of 2 focal planes the sharpest one is used" in done.output
    assert "frame" not in table(tmp_path / "planes")[0]


def test_rows_carry_run_file_and_hours(weights: Path, tmp_path: Path) -> None:
    for run_number in (2, 3, 7):
        (tmp_path / "in").mkdir(exist_ok=True)
        io.write_png(tmp_path / "in" / f"e_RUN{run_number}.png", draw_blastocyst(1, SHAPE).image)
    segment(weights, tmp_path / "out", tmp_path / "in", "--hours", "20", "--interval", "0.5")
    rows = [row for row in table(tmp_path / "out") if row["class"] == "ICM"]
    assert [(row["frame"], row["run"], row["hours"], row["file"]) for row in rows] == [
        ("0", "2", "20.0", "e_RUN2.png"),
        ("1", "3", "20.5", "e_RUN3.png"),
        ("2", "7", "22.5", "e_RUN7.png"),
    ]


def test_axes_that_no_image_has(weights: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((2, 64, 64), np.uint8))
    done = segment(weights, tmp_path / "out", tmp_path / "a.npy", "--axes", "TFYX")
    assert done.exit_code == 2
    assert "the axes 'TFYX' were requested" in done.output


def test_results_are_not_segmented_again(weights: Path, embryos: Path, tmp_path: Path) -> None:
    for path in embryos.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    segment(weights, tmp_path, tmp_path)
    before = files(tmp_path)
    done = segment(weights, tmp_path, tmp_path)
    assert "left out: 4 files (a result of napari-embryo)" in done.output
    assert (done.exit_code, files(tmp_path)) == (0, sorted([*before, "not_done.csv"]))
