"""The real work: small networks, real files, and two hundred that are broken in different ways."""

import csv
import io as memory
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from typer.testing import CliRunner

from napari_embryo import batch, cli, measure, models
from napari_embryo.batch import Outcome, Plan, Summary, work
from napari_embryo.families import UNetSettings
from napari_embryo.models import checkpoint
from napari_embryo.settings import BatchSettings, Preprocessing, SegmentSettings
from napari_embryo.synthetic import draw_blastocyst

PICTURE = draw_blastocyst(1, (64, 96)).image


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A very small U-Net that finds something everywhere."""
    torch.manual_seed(0)
    settings = UNetSettings(base_channels=4)
    info = checkpoint.CheckpointInfo(model=settings, preprocessing=Preprocessing(height=64, width=64))
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    checkpoint.save(path, models.build(settings), info)
    return path


@pytest.fixture(autouse=True)
def _own_network() -> Iterator[None]:
    work.loaded.cache_clear()
    yield
    work.loaded.cache_clear()


def plan_of(folder: Path, out: Path, weights: Path, **settings: object) -> Plan:
    segment = SegmentSettings(weights=str(weights), device="cpu", maps=())
    return batch.plan([folder], out, BatchSettings.model_validate({"segment": segment, **settings}))


def run(plan: Plan, workers: object = None) -> tuple[dict[str, Outcome], Summary]:
    steps = batch.run(plan, workers or batch.Inline())  # type: ignore[arg-type]
    outcomes: dict[str, Outcome] = {}
    try:
        while True:
            item = next(steps).item
            outcomes |= {item.job: item} if isinstance(item, Outcome) else {}
    except StopIteration as finished:
        return outcomes, finished.value


def table(out: Path) -> list[dict[str, str]]:
    with (out / "measurements.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def encoded(kind: str, **options: object) -> bytes:
    file = memory.BytesIO()
    Image.fromarray(PICTURE).save(file, kind, **options)
    return file.getvalue()


def cut(data: bytes, number: int) -> bytes:
    return data[: 60 + number * (len(data) - 100) // 50]


def damaged_tiff(number: int) -> bytes:
    """A deflate stream whose first bytes are others: zlib's own error."""
    file = memory.BytesIO()
    tifffile.imwrite(file, PICTURE, compression="zlib", metadata=None)
    data = bytearray(file.getvalue())
    with tifffile.TiffFile(memory.BytesIO(bytes(data))) as tiff:
        start = tiff.pages[0].dataoffsets[0]
    data[start + number % 4 : start + 20 + number] = os.urandom(20 + number - number % 4)
    data[start] = 0
    return bytes(data)


def odd_tiff(number: int) -> bytes:
    """Zstandard, which needs another package, and is damaged as well."""
    data = b"\x28\xb5\x2f\xfd" + bytes(200 + number)
    entries = [(256, 4, 96), (257, 4, 64), (258, 3, 8), (259, 3, 50000), (262, 3, 1), (273, 4, 8)]
    entries += [(277, 3, 1), (278, 4, 64), (279, 4, len(data))]
    tags = b"".join(
        struct.pack("<HHI", tag, kind, 1) + (struct.pack("<I", value) if kind == 4 else struct.pack("<HH", value, 0))
        for tag, kind, value in entries
    )
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(entries)) + tags + bytes(4)


def bad_npy(number: int) -> bytes:
    file = memory.BytesIO()
    pixels = PICTURE.astype(np.float32)
    pixels[number, number] = np.nan
    np.save(file, pixels)
    if number % 2:
        return b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'shape': (64, 9999" + bytes([number])
    return file.getvalue()


BROKEN: dict[str, Callable[[int], bytes]] = {
    ".png": lambda i: cut(encoded("PNG"), i),
    ".jpg": lambda i: (b"\xff\xd8\xff" + bytes([i]) * i, b"no picture", b"")[i % 3],
    ".tif": lambda i: damaged_tiff(i) if i % 2 else odd_tiff(i // 2),
    ".npy": bad_npy,
}


@pytest.mark.parametrize(
    ("good", "bad", "is_in_processes"),
    [(5, 10, False), pytest.param(50, 50, True, marks=pytest.mark.slow)],
)
def test_broken_files_among_good_ones(
    weights: Path, tmp_path: Path, good: int, bad: int, is_in_processes: bool
) -> None:
    """Every good one is done, every broken one has a reason."""
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(good):
        Image.fromarray(draw_blastocyst(i, (64, 96)).image).save(folder / f"{i}_good.png")
    for ending, make in BROKEN.items():
        for i in range(bad):
            (folder / f"{i}_bad{ending}").write_bytes(make(i))
    workers = batch.local("cpu", time_limit=60) if is_in_processes else batch.Inline()
    outcomes, summary = run(plan_of(folder, tmp_path / "out", weights, grouping="separate"), workers)
    assert (summary.done, summary.failed) == (good, 4 * bad)
    assert {row["image"] for row in table(tmp_path / "out")} == {f"{i}_good" for i in range(good)}
    failed = [outcome for outcome in outcomes.values() if outcome.status == "failed"]
    assert all(outcome.failures[0].reason for outcome in failed)
    assert {outcome.failures[0].step for outcome in failed} == {"reading"}
    with (tmp_path / "out" / "not_done.csv").open(newline="", encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 4 * bad


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_odd_names_from_file_to_table(weights: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    names = [b"\xe9t\xe9.png", b"two\nlines.png", b"=1+1.png", b"x" * 251 + b".png", "Зародыш 胚.png".encode()]
    for name in names:
        (folder / os.fsdecode(name)).write_bytes(encoded("PNG"))
    outcomes, summary = run(plan_of(folder, tmp_path / "out", weights))
    assert (summary.done, summary.failed) == (len(names), 0)
    assert {row["file"] for row in table(tmp_path / "out")} == {
        r"\xe9t\xe9.png", "two\nlines.png", "'=1+1.png", "x" * 251 + ".png", "Зародыш 胚.png"
    }  # fmt: skip
    for outcome in outcomes.values():
        assert [(tmp_path / "out" / output.name).exists() for output in outcome.outputs] == [True, True]


def test_three_runs_into_the_folder_itself(weights: Path, tmp_path: Path) -> None:
    for i in range(2):
        (tmp_path / f"{i}_x.png").write_bytes(encoded("PNG"))
    for _ in range(3):
        _, summary = run(plan_of(tmp_path, tmp_path, weights, grouping="separate"))
        assert summary.done == 2


def test_a_file_that_changes_while_it_is_read(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "x.png"
    path.write_bytes(encoded("PNG"))
    real = measure.measure_all

    def slow(*args: object) -> object:
        path.write_bytes(encoded("PNG", compress_level=0))
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(measure, "measure_all", slow)
    outcomes, summary = run(plan_of(tmp_path / "in", tmp_path / "out", weights))
    assert "changed while it was being read" in outcomes["x"].failures[0].text()
    assert (summary.failed, list((tmp_path / "out").glob("x_*"))) == (1, [])
    assert not (tmp_path / "out" / "measurements.csv").exists()
    monkeypatch.undo()
    assert run(plan_of(tmp_path / "in", tmp_path / "out", weights))[1].done == 1


def test_writing_onto_a_full_disk(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said once, instead of as many failures as there are images left."""
    (tmp_path / "in").mkdir()
    for i in range(8):
        (tmp_path / "in" / f"{i}.png").write_bytes(encoded("PNG"))
    real, written = Path.replace, []

    def replace(path: Path, target: Path) -> Path:
        if str(target).endswith("_labels.ome.tif"):
            written.append(target)
            if len(written) > 3:
                raise OSError(28, "No space left on device")
        return real(path, target)

    monkeypatch.setattr(Path, "replace", replace)
    plan = plan_of(tmp_path / "in", tmp_path / "out", weights, grouping="separate")
    with pytest.raises(batch.StoppedError, match="disk full"):
        run(plan)
    assert len({row["image"] for row in table(tmp_path / "out")}) == 3
    monkeypatch.undo()
    assert run(plan)[1].done == 8


@pytest.mark.parametrize(("bad", "code"), [(0, 0), (1, 1), (2, 2)])
def test_exit_codes_and_json_lines(weights: Path, tmp_path: Path, bad: int, code: int) -> None:
    (tmp_path / "in").mkdir()
    for i in range(2):
        (tmp_path / "in" / f"{i}.png").write_bytes(b"bad" if i < bad else encoded("PNG"))
    words = ["batch", tmp_path / "in", "--out", tmp_path / "out", "--weights", weights, "--device", "cpu", "--json"]
    done = CliRunner().invoke(cli.app, [*map(str, words), "--processes", "1"])
    assert done.exit_code == code, done.output
    import json

    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["event"] for event in events] == ["plan", "started", "image", "image", "finished"]
    assert [event["status"] for event in events[2:4]] == ["failed"] * bad + ["done"] * (2 - bad)


def test_dry_run_lists_and_does_nothing(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "x.png").write_bytes(encoded("PNG"))
    words = ["batch", tmp_path / "in", "--out", tmp_path / "out", "--weights", weights, "--dry-run"]
    done = CliRunner().invoke(cli.app, list(map(str, words)))
    assert "x.png -> x" in done.output
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_images(weights: Path, tmp_path: Path) -> None:
    """JPEGs of 2 megapixels, which kept 13 MB each when they were all held."""
    pytest.importorskip("resource")
    peaks = []
    for count in (20, 80):
        folder = tmp_path / str(count)
        folder.mkdir()
        picture = Image.fromarray(PICTURE).convert("RGB").resize((1600, 1200))
        for i in range(count):
            picture.save(folder / f"{i}_x.jpg")
        words = [sys.executable, Path(__file__).with_name("peak.py"), folder, tmp_path / f"out{count}", weights]
        done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=True)
        peaks.append(float(done.stdout))
    assert peaks[1] < 1.2 * peaks[0]
