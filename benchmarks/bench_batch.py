"""How much of the network's own speed a batch reaches, and what it needs of memory: one table.

A batch of worker processes does a folder as ``napari-embryo batch`` does: plan, read, segment, overlay, measure,
write, record. The bare forward pass is the same network on the very inputs that the batch prepared, in one process with
as many threads as all workers have together. Both run one after the other, several times, so that a slow minute hits
both.
"""

import argparse
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from bench_segment import draw_folder, forward_all, load, record
from rich.console import Console
from rich.table import Table

from napari_embryo import batch
from napari_embryo.batch import Outcome, Started
from napari_embryo.batch.executors import _cores
from napari_embryo.settings import BatchSettings, SegmentSettings

GOAL = 0.9


def main() -> None:
    """Measure and print."""
    options = parse()
    if options.memory:
        print(f"{peak_of_one_process(options.images):.0f}")
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = draw_folder(Path(scratch) / "pictures", options.images)
        inputs = prepared(folder, Path(scratch), options)
        rounds = [one_round(folder, Path(scratch) / "out", inputs, options) for _ in range(options.repeats)]
    report(rounds, options)
    if options.peaks:
        few, many = (peak_in_a_process_of_its_own(count) for count in (20, options.images))
        print(
            f"peak memory of a worker: {few:.0f} MB over 20 pictures, {many:.0f} MB over {options.images}: "
            f"{many / few:.2f} times"
        )


def parse() -> argparse.Namespace:
    """What to measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200, help="how many pictures (default 200)")
    parser.add_argument("--weights", default="bundled", help="'bundled' or a checkpoint")
    parser.add_argument("--device", default="cpu", choices=("auto", "cuda", "mps", "cpu"))
    parser.add_argument("--repeats", type=int, default=3, help="how often both are timed (default 3)")
    parser.add_argument("--peaks", action="store_true", help="measure memory, too")
    parser.add_argument("--memory", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def settings(options: argparse.Namespace) -> BatchSettings:
    """Default outputs."""
    return BatchSettings(segment=SegmentSettings(weights=options.weights, device=options.device, maps=()))


def prepared(folder: Path, scratch: Path, options: argparse.Namespace) -> tuple[object, list[object]]:
    """The network in this process, and every input that it is shown."""
    predictor = load(options.weights, options.device)
    return predictor, [each.inputs for each in record(folder, scratch, predictor, options.images)]


def one_round(
    folder: Path, out: Path, prepared: tuple[object, list[object]], options: argparse.Namespace
) -> dict[str, float]:
    """Pictures per second of the whole batch, of the batch once its workers are ready, and of the bare network."""
    import torch

    shutil.rmtree(out, ignore_errors=True)
    plan = batch.plan([folder], out, settings(options))
    start = time.perf_counter()
    first, done = start, 0
    for step in batch.run(plan, batch.local(options.device, len(plan.jobs))):
        first = time.perf_counter() if isinstance(step.item, Started) else first
        done += isinstance(step.item, Outcome)
    end = time.perf_counter()
    predictor, inputs = prepared
    torch.set_num_threads(_cores())
    bare = time.perf_counter()
    forward_all(predictor, predictor.model, inputs)  # type: ignore[attr-defined,arg-type]
    seconds = time.perf_counter() - bare
    return {"whole": done / (end - start), "ready": done / (end - first), "bare": len(plan.jobs) / seconds}


def report(rounds: list[dict[str, float]], options: argparse.Namespace) -> None:
    """The table."""
    table = Table(title=f"{options.images} pictures, {_cores()} cores, device {options.device}")
    for column in ("what", "images/s", "range", "of the bare network"):
        table.add_column(column, justify="left" if column == "what" else "right")
    names = {"whole": "batch, with the start of its processes", "ready": "batch", "bare": "bare forward pass"}
    for key, name in names.items():
        each = [one[key] for one in rounds]
        share = median(one[key] / one["bare"] for one in rounds)
        table.add_row(name, f"{median(each):.2f}", f"{min(each):.2f}-{max(each):.2f}", f"{share:.2f}")
    Console(width=100, highlight=False).print(table)
    print(f"The goal is {GOAL}. Medians of {options.repeats} rounds, each compared within itself.")


def peak_in_a_process_of_its_own(count: int) -> float:
    """MB."""
    words = [sys.executable, __file__, "--memory", "--images", str(count)]
    return float(subprocess.run(words, capture_output=True, text=True, check=True).stdout)


def peak_of_one_process(count: int) -> float:
    """Most MB that this process held while it did so many pictures."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = draw_folder(Path(scratch) / "pictures", min(count, 50))
        for i in range(50, count):
            shutil.copy(folder / f"blastocyst_{i % 50:04d}_{i % 50:x}x.png", folder / f"copy_{i:04d}_{i:x}x.png")
        segment = SegmentSettings(device="cpu", maps=())
        plan = batch.plan([folder], Path(scratch) / "out", BatchSettings(segment=segment, grouping="separate"))
        for _ in batch.run(plan, batch.Inline()):
            pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
