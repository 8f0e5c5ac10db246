"""Training from the command line, as a person and as a program meet it."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from napari_embryo import cli, library, models, recipes, reproduce, stream
from napari_embryo.cli.preview import side_by_side
from napari_embryo.drawing import draw_cleavages
from napari_embryo.families import BLASTOCYST_CLASSES
from napari_embryo.models import checkpoint
from napari_embryo.render import COLORS
from napari_embryo.settings import Recipe
from napari_embryo.stream import Epoch

SECONDS = 120
"""That a slow computer may take for anything."""


@pytest.fixture(autouse=True)
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NAPARI_EMBRYO_MODELS", str(tmp_path / "shelf"))
    return tmp_path / "shelf"


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return reproduce.draw_embryos(tmp_path_factory.mktemp("data") / "drawn", 6, (64, 80))


@pytest.fixture
def recipe(tmp_path: Path, drawn: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(
        "name: tiny\nstart: random\nmodel: {family: unet, base_channels: 4}\n"
        f"preprocessing: {{height: 48, width: 64}}\ndata: {{folders: ['{drawn}']}}\n"
        "training: {epochs: 2, batch_size: 2, device: cpu}\n"
    )
    return path


def run(*words: object) -> Result:
    return CliRunner().invoke(cli.app, [str(word) for word in words])


@pytest.fixture
def streamed(capfd: pytest.CaptureFixture[str]) -> Iterator[Callable[..., tuple[int, list[stream.Event]]]]:
    """Runs `train --stream` in this process, with a standard input that stays open."""
    on_interrupt, own = signal.getsignal(signal.SIGINT), os.dup(0)
    theirs, ours = os.pipe()
    os.dup2(theirs, 0)

    def train(*words: object) -> tuple[int, list[stream.Event]]:
        code = run("train", *words, "--stream").exit_code
        return code, [stream.decode(line) for line in capfd.readouterr().out.splitlines()]

    yield train
    os.dup2(own, 0)
    for descriptor in (own, theirs, ours):
        os.close(descriptor)
    signal.signal(signal.SIGINT, on_interrupt)


# --- train ----------------------------------------------------------------------------------------------------------


def test_a_training_becomes_a_model_that_other_commands_know(recipe: Path, drawn: Path, tmp_path: Path) -> None:
    done = run("train", recipe, "--out", tmp_path / "out", "--name", "my-clinic")
    assert done.exit_code == 0, done.output
    for words in ("validation", "starts from random weights", "epoch 2: loss", "done after 2 epochs", "my-clinic"):
        assert words in done.output, words
    assert list(library.in_library()) == ["my-clinic"]
    assert checkpoint.load("my-clinic").sha256 == checkpoint.file_sha256(tmp_path / "out" / "best.safetensors")
    assert run("evaluate", "--weights", "my-clinic", "--data", drawn, "--device", "cpu").exit_code == 0
    assert "my-clinic" in run("info").output


def test_a_shape_code_is_trained_and_its_use_is_told(tmp_path: Path) -> None:
    """It draws nothing by itself: a detector is trained with it."""
    draw_cleavages(tmp_path / "drawn", 4, (64, 64))
    words = ("--data", tmp_path / "drawn", "--epochs", 1, "--device", "cpu", "--out", tmp_path / "out")
    done = run("train", "shapecode", *words, "--name", "my-shapes")
    assert done.exit_code == 0, done.output
    for said in ("cells", "IoU", "train vqamodal-from-imagenet --shape-code my-shapes"):
        assert said in " ".join(done.output.split()), said
    assert "segment" not in done.output
    assert checkpoint.load("my-shapes").info.model.family == "shapecode"


def test_weights_named_from_here_are_found_when_going_on(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("train", recipe, "--out", tmp_path / "first", "--epochs", 1).exit_code == 0
    monkeypatch.chdir(tmp_path / "first")
    words = ("train", recipe, "--out", tmp_path / "second", "--epochs", 1)
    assert run(*words, "--start", "best.safetensors").exit_code == 0
    done = run("train", "--resume", "--out", tmp_path / "second", "--epochs", 2)
    assert done.exit_code == 0, done.output


def test_what_the_command_line_says_goes_before_the_recipe(recipe: Path, drawn: Path, tmp_path: Path) -> None:
    other = reproduce.draw_embryos(tmp_path / "other", 4, (64, 64))
    done = run("train", recipe, "--out", tmp_path / "out", "--epochs", 1, "--data", drawn, "--data", other)
    assert done.exit_code == 0, done.output
    said = recipes.read(tmp_path / "out" / "recipe.yaml")
    assert (said.training.epochs, said.data.folders) == (1, (str(drawn), str(other)))


def test_where_it_goes_when_nothing_is_said(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("train", recipe, "--epochs", 1).exit_code == 0
    assert (tmp_path / "napari-embryo-trainings" / "tiny" / "best.safetensors").is_file()


def test_a_second_training_needs_another_folder_or_resume(recipe: Path, tmp_path: Path) -> None:
    words = ("train", recipe, "--out", tmp_path / "out")
    assert run(*words).exit_code == 0
    refused = run(*words)
    assert refused.exit_code == 2
    assert "already holds a training run" in refused.output
    assert "--resume" in refused.output
    again = run(*words, "--resume")
    assert again.exit_code == 0
    assert "had already finished" in again.output
    assert list(library.in_library()) == ["tiny"]


def test_a_finished_training_whose_model_is_missing_is_put_there(recipe: Path, tmp_path: Path, shelf: Path) -> None:
    """Cut off between the last epoch and the library."""
    words = ("train", recipe, "--out", tmp_path / "out")
    assert run(*words).exit_code == 0
    (shelf / "tiny.safetensors").unlink()
    assert run(*words, "--resume").exit_code == 0
    assert list(library.in_library()) == ["tiny"]


def test_a_library_that_takes_nothing_costs_no_training(recipe: Path, tmp_path: Path, shelf: Path) -> None:
    shelf.write_text("no folder")
    best = tmp_path / "out" / "best.safetensors"
    done = run("train", recipe, "--out", best.parent)
    assert done.exit_code == 1
    assert isinstance(done.exception, SystemExit)
    assert str(best) in done.output.replace("\n", "")


def test_a_library_that_takes_nothing_is_noted_in_the_stream(
    recipe: Path, tmp_path: Path, shelf: Path, streamed: Callable[..., tuple[int, list[stream.Event]]]
) -> None:
    shelf.write_text("no folder")
    best = tmp_path / "out" / "best.safetensors"
    code, (*_, note, finished) = streamed(recipe, "--out", best.parent)
    assert code == 0
    assert isinstance(note, stream.Noted)
    assert str(best) in note.note.text
    assert note.note.level == "warning"
    assert isinstance(finished, stream.Finished)
    assert (finished.best, finished.added) == (best, None)


def cut_off(recipe: Path, out: Path, epochs: int) -> None:
    """As a training of so many epochs is left where it was cut off after the first one."""
    asked = recipes.changed(recipes.read(recipe), {"training.epochs": epochs})
    steps = recipes.run(recipes.prepare(asked), out)
    next(step for step in steps if isinstance(step.item, Epoch))
    steps.close()


@pytest.mark.parametrize("named", [False, True])
def test_resume_needs_no_more_than_the_folder(recipe: Path, tmp_path: Path, named: bool) -> None:
    cut_off(recipe, tmp_path / "out", 3)
    done = run("train", *([recipe] if named else []), "--resume", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert "epoch 3: loss" in done.output
    assert ("note: up to epoch 3, as when this training began; the recipe says 2" in done.output) == named


def test_more_epochs_go_on_for_longer_and_the_folder_remembers_them(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("train", recipe, "--out", out).exit_code == 0
    longer = run("train", "--resume", "--out", out, "--epochs", 3)
    assert longer.exit_code == 0, longer.output
    assert "epoch 2: loss" not in longer.output
    assert "done after 3 epochs" in longer.output
    assert recipes.read(out / "recipe.yaml").training.epochs == 3
    assert "had already finished" in run("train", "--resume", "--out", out).output


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "no recipe was given; name a .yaml file"),
        (("--resume",), "--resume was given without a folder"),
        (("--resume", "--out", "nowhere"), "nowhere: there is no training to resume"),
        (("unet-baseline", "--resume", "--out", "nowhere"), "nowhere: there is no training to resume"),
    ],
)
def test_what_there_is_to_train_has_to_be_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("train", *words)
    assert done.exit_code == 2
    assert says in done.output


def test_one_epoch_is_no_epochs(recipe: Path, tmp_path: Path) -> None:
    done = run("train", recipe, "--out", tmp_path / "out", "--epochs", 1)
    assert "done after 1 epoch; the best was epoch 1" in done.output, done.output


def test_weights_of_another_family_are_said_to_be_what_is_trained(recipe: Path, drawn: Path, tmp_path: Path) -> None:
    assert run("train", recipe, "--out", tmp_path / "first", "--epochs", 1).exit_code == 0
    best = tmp_path / "first" / "best.safetensors"
    words = ("--data", drawn, "--start", best, "--epochs", 1, "--device", "cpu", "--out", tmp_path / "second")
    done = run("train", "blastocyst-finetune", *words)
    assert done.exit_code == 0, done.output
    assert "the starting weights are of the family unet: that is trained, not resanet as in the recipe" in done.output
    assert recipes.read(tmp_path / "second" / "recipe.yaml").model.family == "unet"


def test_how_the_annotations_lie_can_be_said(recipe: Path, drawn: Path, tmp_path: Path) -> None:
    done = run("train", recipe, "--out", tmp_path / "out", "--epochs", 1, "--layout", "saeedi")
    assert done.exit_code == 0, done.output
    assert recipes.read(tmp_path / "out" / "recipe.yaml").data.layout == "saeedi"
    refused = run("preview", recipe, "--out", tmp_path / "p.png", "--layout", "coco")
    assert refused.exit_code == 2
    assert f"{drawn}: no image there can be used" in refused.output


def test_a_corrected_recipe_runs_in_the_same_folder(recipe: Path, tmp_path: Path) -> None:
    content = recipe.read_text()
    recipe.write_text(content.replace("epochs: 2,", "epochs: 2, loss_weights: {dcie: 2},"))
    refused = run("train", recipe, "--out", tmp_path / "out")
    assert refused.exit_code == 2
    assert "dcie" in refused.output
    recipe.write_text(content)
    assert run("train", recipe, "--out", tmp_path / "out").exit_code == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--epochs", 0), "training.epochs: 0 was given; a number of at least 1 is needed"),
        (("--name", "a b"), "name: 'a b' was given"),
        (("--name", ".."), "name: '..' was given"),
        (("--name", ".hidden"), "name: '.hidden' was given"),
        (("--name", "Bundled"), "name: 'Bundled' was given, but bundled, imagenet, random are reserved"),
        (("--name", "random"), "choose another one"),
        (("--device", "toaster"), "toaster"),
        (("--data", "/nowhere"), "/nowhere"),
        (("--start", "no-such"), "no-such: no such checkpoint"),
        (("--start", "imagenet"), "family unet"),
    ],
)
def test_a_wrong_option_is_explained_before_anything_is_written(
    recipe: Path, tmp_path: Path, words: tuple[object, ...], says: str
) -> None:
    done = run("train", recipe, "--out", tmp_path / "out", *words)
    assert done.exit_code == 2
    assert says in done.output
    assert "Traceback" not in done.output
    assert not (tmp_path / "out").exists()


def test_a_loss_that_is_no_number_ends_with_the_reason(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(
        models.NETWORKS,
        "unet",
        replace(models.NETWORKS["unet"], loss=lambda outputs, _: {"bce": outputs["logits"].mean() * float("nan")}),
    )
    done = run("train", recipe, "--out", tmp_path / "out")
    assert done.exit_code == 1
    assert "nan" in done.output.lower()
    assert "drawn" in done.output
    assert library.in_library() == {}


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
def test_ctrl_c_keeps_best_and_last_and_resume_goes_on(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = [sys.executable, "-m", "napari_embryo", "train", recipe, "--out", out]
    child = subprocess.Popen(
        [*words, "--epochs", "2000"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1
    )
    with ended(child):
        said = []
        for line in child.stdout or ():
            said.append(line)
            if line.startswith("epoch 2:"):
                child.send_signal(signal.SIGINT)
        assert child.wait(SECONDS) == 130, said
    text = "".join(said)
    assert "--resume" in text
    assert "Traceback" not in text
    assert text.count("epoch 2:") == 1
    for name in ("best", "last"):
        assert checkpoint.load(out / f"{name}.safetensors").info.provenance["recipe"]["name"] == "tiny"
    assert library.in_library() == {}


@contextmanager
def ended(child: "subprocess.Popen[str]") -> Iterator[None]:
    """Killed when it has not ended by itself."""
    timer = threading.Timer(SECONDS, child.kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        child.kill()
        child.wait()


# --- recipes and preview --------------------------------------------------------------------------------------------


def test_the_recipes_are_listed_and_one_can_be_copied(tmp_path: Path) -> None:
    listed = run("recipes")
    assert listed.exit_code == 0
    assert [line.split()[0] for line in listed.output.splitlines()] == list(recipes.names())
    shown = run("recipes", "--show", "unet-baseline")
    (tmp_path / "mine.yaml").write_text(shown.output)
    assert recipes.read(tmp_path / "mine.yaml") == recipes.read("unet-baseline")
    unknown = run("recipes", "--show", "resnet")
    assert unknown.exit_code == 2
    assert "blastocyst-finetune" in unknown.output


def test_a_preview_of_what_the_network_will_see(recipe: Path, tmp_path: Path) -> None:
    done = run("preview", recipe, "--out", tmp_path / "new" / "p.png", "--count", 4)
    assert done.exit_code == 0, done.output
    with Image.open(tmp_path / "new" / "p.png") as picture:
        assert picture.size == (2 * 64 + 4, 2 * 48 + 4 + 22)
        sheet = np.asarray(picture)
    assert sheet[:100].std() > 10
    key, outlines = ({tuple(color) for color in part.reshape(-1, 3).tolist()} for part in (sheet[100:], sheet[:100]))
    assert {COLORS[name] for name in BLASTOCYST_CLASSES} <= key & outlines
    assert "4 training images" in done.output


def test_a_preview_of_one(recipe: Path, tmp_path: Path) -> None:
    done = run("preview", recipe, "--out", tmp_path / "p.PNG", "--count", 1)
    assert "1 training image drawn in" in done.output, done.output


# --- where it is written --------------------------------------------------------------------------------------------


def a_file(place: Path) -> str:
    place.write_text("mine")
    return "a file of that name exists"


def below_a_file(place: Path) -> str:
    place.parent.write_text("mine")
    return f"{place.parent} is a file"


def read_only(place: Path) -> str:
    place.mkdir()
    if os.name == "nt" or os.geteuid() == 0:
        pytest.skip("this user may write everywhere")
    place.chmod(0o555)
    return "cannot write there"


@pytest.mark.parametrize("make", [a_file, below_a_file, read_only])
@pytest.mark.parametrize("command", ["train", "preview"])
def test_where_nothing_can_be_written_is_said_before_anything_is_read(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, make: Callable[[Path], str]
) -> None:
    monkeypatch.setattr(recipes, "prepare", None)
    place = tmp_path / "new" / "out"
    place.parent.parent.mkdir(exist_ok=True)
    (place.parent.mkdir() if make is not below_a_file else None)
    says = make(place)
    done = run(command, recipe, "--out", place if command == "train" else place / "p.png")
    assert done.exit_code == 2
    assert says in done.output
    assert str(place) in done.output.replace("\n", "")


@pytest.mark.parametrize("name", ["p.jpg", "p", "p.png.tif"])
def test_a_preview_is_a_png(recipe: Path, tmp_path: Path, name: str) -> None:
    done = run("preview", recipe, "--out", tmp_path / name)
    assert done.exit_code == 2
    assert f"{name}: a .png file is written; choose a name that ends in .png" in done.output
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize(("count", "rows", "columns"), [(1, 1, 1), (2, 1, 2), (3, 2, 2), (5, 2, 3), (16, 4, 4)])
def test_pictures_side_by_side(count: int, rows: int, columns: int) -> None:
    pictures = np.arange(1, count + 1, dtype=np.uint8)[:, None, None, None] * np.ones((1, 5, 7, 3), np.uint8)
    whole = side_by_side(pictures, gap=2)
    assert whole.shape == (rows * 7 - 2, columns * 9 - 2, 3)
    assert [int((whole[..., 0] == i).sum()) for i in range(1, count + 1)] == [35] * count


# --- the stream -----------------------------------------------------------------------------------------------------


class Watcher:
    """The other side of --stream."""

    def __init__(self, *words: object) -> None:
        command = [sys.executable, "-m", "napari_embryo", "train", *map(str, words), "--stream"]
        pipe = subprocess.PIPE
        self.child = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, encoding="utf-8")
        self.events: list[stream.Event] = []

    def say(self, order: str) -> None:
        assert self.child.stdin is not None
        self.child.stdin.write(f"{order}\n")
        self.child.stdin.flush()

    def until(self, ends: Callable[[stream.Event], bool]) -> stream.Event:
        for line in self.child.stdout or ():
            self.events.append(stream.decode(line))
            if ends(self.events[-1]):
                return self.events[-1]
        raise AssertionError(f"ended before; {self.events[-2:]}; {self.child.stderr and self.child.stderr.read()}")

    def rest(self) -> int:
        self.events += [stream.decode(line) for line in self.child.stdout or ()]
        return self.child.wait(SECONDS)


def is_a(*kinds: type) -> Callable[[stream.Event], bool]:
    return lambda event: isinstance(event, kinds)


def test_pause_resume_and_stop(recipe: Path, tmp_path: Path) -> None:
    watcher = Watcher(recipe, "--out", tmp_path / "out", "--epochs", 100_000)
    with ended(watcher.child):
        report = watcher.until(is_a(stream.Report))
        watcher.until(is_a(stream.Epoch))
        watcher.say("pause")
        watcher.until(is_a(stream.Paused))
        step = next(e for e in reversed(watcher.events) if isinstance(e, stream.Step | stream.Epoch))
        silence = threading.Timer(0.5, watcher.say, ["resume"])
        silence.start()
        assert isinstance(watcher.until(lambda _: True), stream.Resumed)  # not a step in between
        following = watcher.until(is_a(stream.Step))
        assert isinstance(following, stream.Step)
        assert following.done == step.done + 1
        watcher.say("nonsense")
        watcher.say("stop")
        finished = watcher.until(is_a(stream.Finished))
        assert watcher.rest() == 0
    assert isinstance(report, stream.Report)
    assert {row["part"] for row in report.rows} == {"train", "validation"}
    assert isinstance(finished, stream.Finished)
    assert finished.reason == "stopped"
    assert finished.best_epoch >= 1
    assert watcher.events[-1] is finished
    for path in (finished.best, finished.last, finished.added):
        assert path is not None
        assert checkpoint.load(str(path)).info.model.family == "unet"
    assert library.in_library() == {"tiny": finished.added}
    assert finished.epochs == sum(isinstance(e, stream.Epoch) for e in watcher.events)


def test_a_window_that_is_gone_stops_the_training(recipe: Path, tmp_path: Path) -> None:
    """Also while it is paused; nothing is left running."""
    watcher = Watcher(recipe, "--out", tmp_path / "out", "--epochs", 100_000)
    with ended(watcher.child):
        watcher.until(is_a(stream.Epoch))
        watcher.say("pause")
        watcher.until(is_a(stream.Paused))
        assert watcher.child.stdin is not None
        watcher.child.stdin.close()
        assert watcher.rest() == 0
    assert isinstance(watcher.events[-1], stream.Finished)


def test_a_window_that_was_killed_leaves_no_training_behind(recipe: Path, tmp_path: Path) -> None:
    watcher = Watcher(recipe, "--out", tmp_path / "out", "--epochs", 100_000)
    with ended(watcher.child):
        watcher.until(is_a(stream.Epoch))
        for end in (watcher.child.stdout, watcher.child.stdin, watcher.child.stderr):
            assert end is not None
            end.close()
        assert watcher.child.wait(SECONDS) == 0
    assert checkpoint.load(tmp_path / "out" / "last.safetensors").info.model.family == "unet"


def test_to_the_end_in_order(
    recipe: Path, tmp_path: Path, streamed: Callable[..., tuple[int, list[stream.Event]]]
) -> None:
    code, events = streamed(recipe, "--out", tmp_path / "out")
    assert code == 0
    kinds = [e.event for e in events if e.event != "note"]
    assert kinds == ["report", "step", "step", "epoch", "step", "step", "epoch", "finished"]
    steps = [e for e in events if isinstance(e, stream.Step)]
    assert [(s.done, s.total, s.epoch) for s in steps] == [(1, 4, 1), (2, 4, 1), (3, 4, 2), (4, 4, 2)]
    epoch = next(e for e in events if isinstance(e, stream.Epoch))
    assert set(epoch.scores) == {"IoU ICM", "IoU TE", "IoU ZP"}
    assert epoch.worst


def broken(recipe: Path) -> None:
    recipe.write_text("training: {epochs: 0}")


def without_data(recipe: Path) -> None:
    recipes.write(recipe, Recipe(start="random", name="x"))


@pytest.mark.parametrize(
    ("spoil", "says"), [(broken, "training.epochs: 0 was given"), (without_data, "names no folder")]
)
def test_an_error_is_the_last_line(
    recipe: Path,
    tmp_path: Path,
    streamed: Callable[..., tuple[int, list[stream.Event]]],
    spoil: Callable[[Path], Any],
    says: str,
) -> None:
    spoil(recipe)
    code, (*_, last) = streamed(recipe, "--out", tmp_path / "out")
    assert code == 1
    assert isinstance(last, stream.Error)
    assert says in last.message
