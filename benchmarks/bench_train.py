"""Compare the program's training speed with that of a bare training loop; print one table.

The real path is what ``napari-embryo train`` does between two epochs: images are read, decoded, augmented and collated
while the network learns from the previous batch. The bare loop is the same network, optimizer and precision over
batches prepared in memory. Both run in turn several times, so that slow periods of the machine affect both alike;
medians, ranges and the ratios within rounds are printed.

    python benchmarks/bench_train.py --data DIR
    python benchmarks/bench_train.py --quick
"""

import argparse
import platform
import tempfile
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from math import inf
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from napari_embryo import __version__, models, predict
from napari_embryo.augment import TrainingSet
from napari_embryo.data import Sample, find_samples
from napari_embryo.families import BLASTOCYST_CLASSES, ResANetSettings, UNetSettings
from napari_embryo.image import Progress
from napari_embryo.settings import DataSettings, Preprocessing, Recipe
from napari_embryo.stream import Step
from napari_embryo.synthetic import draw_blastocyst
from napari_embryo.train import loader, optim, train

GOAL = 0.9


def main() -> None:
    """Measure and print."""
    options = parse()
    samples = read(options.data) if options.data else draw(options.images)
    recipe = recipe_of(options, samples)
    if len(samples) < recipe.training.batch_size:
        raise SystemExit(f"{len(samples)} images; a batch needs {recipe.training.batch_size}")
    with tempfile.TemporaryDirectory() as scratch, closing(real(samples, recipe, Path(scratch))) as with_loader:
        rates = interleaved(with_loader, bare(samples, recipe), options.rounds, options.steps)
    report(rates, len(samples), recipe, options)


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, help="folder of LabelMe files next to their images; by default drawn embryos"
    )
    parser.add_argument("--images", type=int, default=32, help="number of embryos to draw")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=6, help="steps of each loop per round")
    parser.add_argument("--workers", type=int, default=0, help="processes that prepare samples; 0 uses a thread")
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--quick", action="store_true", help="a tiny U-Net on small images, to check that everything runs"
    )
    options = parser.parse_args()
    if options.quick:
        options.images, options.rounds, options.steps = 8, 2, 2
    return options


def recipe_of(options: argparse.Namespace, samples: Sequence[Sample]) -> Recipe:
    """The settings of the bundled weights, with one epoch that outlasts the measurement."""
    size = 4 if options.quick else 8
    steps = options.rounds * (options.steps + loader.AHEAD) + 1
    visits = 1 + steps * size // len(samples)
    training = {"device": options.device, "workers": options.workers, "batch_size": size, "epochs": 1}
    return Recipe.model_validate(
        {
            "model": UNetSettings(base_channels=4) if options.quick else ResANetSettings(),
            "preprocessing": Preprocessing(height=64, width=64) if options.quick else Preprocessing(),
            "data": {"repeats": {sample.source: visits for sample in samples}},
            "training": training,
        }
    )


def read(folder: Path) -> Sequence[Sample]:
    """Annotated images, read from disk during the measurement."""
    return find_samples(DataSettings(folders=(str(folder),)), BLASTOCYST_CLASSES).samples


def draw(count: int) -> list[Sample]:
    """Drawn blastocysts, in memory."""
    drawn = (draw_blastocyst(seed) for seed in range(count))
    return [Sample.of(f"embryo {d.seed}", d.image, d.stack(BLASTOCYST_CLASSES)) for d in drawn]


def network(recipe: Recipe) -> nn.Module:
    """The same network for both loops."""
    torch.manual_seed(0)
    return models.build(recipe.model)


def real(samples: Sequence[Sample], recipe: Recipe, out: Path) -> Generator[None, None, None]:
    """One step of the program at every ``next``; the end of an epoch is not included."""
    running: Generator[Progress, None, Any] = train(network(recipe), samples, [], recipe, out)
    with closing(running):
        for progress in running:
            if isinstance(progress.item, Step):
                yield


def bare(samples: Sequence[Sample], recipe: Recipe) -> Iterator[None]:
    """One step of a hand-written loop at every ``next``."""
    settings = recipe.training
    device = predict.choose_device(settings.device)
    model = network(recipe).to(device).to(memory_format=torch.channels_last).train()
    optimizer = optim.build_optimizer(model, settings)
    compute_loss = models.NETWORKS[recipe.model.family].loss
    ready = [{name: t.to(device) for name, t in batch.items()} for batch in in_memory(samples, recipe)]
    mixed = torch.autocast(device.type, torch.bfloat16, enabled=predict.use_bfloat16(settings.precision, device))
    for step in range(10**9):
        batch = ready[step % len(ready)]
        with mixed:
            outputs = model(batch["image"])
        total = torch.stack(list(compute_loss(outputs, batch).values())).sum()
        optimizer.zero_grad()
        total.backward()
        nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm or inf)
        optimizer.step()
        total.item()
        yield


def in_memory(samples: Sequence[Sample], recipe: Recipe) -> list[loader.Batch]:
    """The batches of one epoch, augmented in advance."""
    items = TrainingSet(samples, recipe.preprocessing, recipe.augmentation)
    visits = loader.epoch_of_visits(len(samples), recipe.training.batch_size, 0, 1)
    return [batch for _, batch in loader.prepared(items, visits[:4])]


def interleaved(with_loader: Iterator[None], alone: Iterator[None], rounds: int, steps: int) -> dict[str, list[float]]:
    """Steps per second in each round; batches prepared while the other loop ran are used up first."""
    rates: dict[str, list[float]] = {"train()": [], "bare loop": []}
    for _ in range(rounds):
        for name, running in zip(rates, (with_loader, alone), strict=True):
            for _ in range(loader.AHEAD):
                next(running)
            start = time.perf_counter()
            for _ in range(steps):
                next(running)
            rates[name].append(steps / (time.perf_counter() - start))
    return rates


def report(rates: dict[str, list[float]], pictures: int, recipe: Recipe, options: argparse.Namespace) -> None:
    """Print the table and the conditions."""
    height, width = recipe.preprocessing.net_hw
    size = recipe.training.batch_size
    table = Table(title=f"{recipe.model.family}, {height} x {width}, batches of {size}, {pictures} images")
    for column in ("what", "steps/s", "range", "pictures/s"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for name, each in rates.items():
        table.add_row(name, f"{median(each):.3f}", f"{min(each):.3f}-{max(each):.3f}", f"{median(each) * size:.2f}")
    ratios = [a / b for a, b in zip(rates["train()"], rates["bare loop"], strict=True)]
    table.add_row("ratio", f"{median(ratios):.2f}", f"{min(ratios):.2f}-{max(ratios):.2f}", f"goal {GOAL}")
    console = Console(width=110, highlight=False)
    console.print(table)
    console.print(conditions(options))


def conditions(options: argparse.Namespace) -> str:
    """Conditions needed to compare with another machine."""
    device = predict.choose_device(options.device)
    return (
        f"napari-embryo {__version__}; device {device}, bfloat16 {predict.use_bfloat16('auto', device)}, "
        f"workers {options.workers}; torch {torch.__version__}, {torch.get_num_threads()} threads; "
        f"numpy {np.__version__}; Python {platform.python_version()} on {platform.platform()}, {platform.machine()}; "
        f"{options.rounds} rounds of {options.steps} steps"
    )


if __name__ == "__main__":
    main()
