"""The papers' tables, run again: the same protocol on the data at hand, beside the published numbers.

``resanet-table1``: U-Net and ResA-Net, one network per class, of the ResA-Net paper. A finished network is not trained
again, and one that was cut off goes on, so that the same command leads to the table whatever happens on the way.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_embryo import evaluate, io, recipes
from napari_embryo.image import Progress
from napari_embryo.settings import Device, Recipe

if TYPE_CHECKING:
    import pandas as pd

    from napari_embryo.data import Sample
    from napari_embryo.models.checkpoint import Checkpoint

TABLES = ("resanet-table1",)
NETWORKS = {"U-Net": "resanet-table1-unet", "ResA-Net": "resanet-table1-resanet"}
CLASSES = ("ZP", "TE", "ICM")
"""In the order of the paper's table."""

Cells = Mapping[str, tuple[float, float | None]]
PUBLISHED: dict[str, Cells] = {
    "U-Net": {"ZP": (79.10, 88.33), "TE": (71.66, 83.49), "ICM": (76.33, 86.57), "mean": (75.69, None)},
    "BlastNet": {"ZP": (81.15, None), "TE": (76.52, None), "ICM": (81.07, None), "mean": (79.58, None)},
    "MASS-Net": {"ZP": (84.69, None), "TE": (79.08, None), "ICM": (85.88, None), "mean": (83.22, None)},
    "ECS-Net": {"ZP": (85.34, None), "TE": (78.43, None), "ICM": (85.26, None), "mean": (83.01, None)},
    "FSBS-Net": {"ZP": (85.80, 92.29), "TE": (80.17, 88.90), "ICM": (85.55, 92.0), "mean": (83.84, None)},
    "ResA-Net": {"ZP": (86.87, 92.72), "TE": (81.10, 88.88), "ICM": (83.09, 90.09), "mean": (83.68, None)},
}
"""IoU and F1 in percent, as printed in the paper's Table 1."""

NOTES = (
    "All in percent. published: as printed in the ResA-Net paper's Table 1, not reproduced.",
    "IoU, F1: mean over the test pictures at their own size, with a 95 % bootstrap interval over embryos;",
    "pooled: over all their pixels; net: at the network's size. The paper does not say which of them it prints:",
    "its U-Net fits pooled numbers (F1 = 2 IoU / (1 + IoU) for each class), its ResA-Net does not.",
)

FAST_NOTE = (
    "Drawn embryos, few and small, and a short training: it tells that everything runs, not how good the networks are."
)

FAST_PICTURES = 12
FAST_SHAPE = (90, 120)
_FAST: dict[str, Any] = {
    "preprocessing.height": 64,
    "preprocessing.width": 86,
    "data.repeats": {"embryos": 10},
    "training.epochs": 3,
    "training.batch_size": 5,
    "training.learning_rate": 1e-3,
}


@dataclass(frozen=True)
class Job:
    """One network for one class.

    Parameters
    ----------
    network
        As the table calls it.
    region
        The class.
    recipe
        How it is trained.
    out
        Its folder.
    """

    network: str
    region: str
    recipe: Recipe
    out: Path

    @property
    def name(self) -> str:
        return f"{self.network} {self.region}"


def protocol(
    table: str, folders: Sequence[str], out: Path, fast: bool = False, device: Device = "auto"
) -> tuple[Job, ...]:
    """The networks that a table compares.

    Parameters
    ----------
    table
        One of :data:`TABLES`.
    folders
        Of annotated blastocysts.
    out
        Gets a folder per network.
    fast
        On a few small drawn embryos instead, a few epochs and a narrow U-Net: whether it all runs.
    device
        To train on.

    Raises
    ------
    ValueError
        When there is no such table, or no folder.
    """
    if table not in TABLES:
        raise ValueError(f"table {table!r} came; there is {', '.join(TABLES)}")
    if fast and folders:
        raise ValueError("--fast draws its own embryos; give either --fast or --data")
    if not fast and not folders:
        raise ValueError("no folder of annotated blastocysts came; name one with --data, or try --fast")
    found = [str(draw_embryos(out / "embryos"))] if fast else list(folders)
    jobs = [
        Job(network, region, _recipe(network, name, region, found, fast, device), out / f"{network}_{region}")
        for network, name in NETWORKS.items()
        for region in CLASSES
    ]
    return tuple(jobs)


def _recipe(network: str, name: str, region: str, folders: list[str], fast: bool, device: Device) -> Recipe:
    narrow = {"model.base_channels": 8} if fast and network == "U-Net" else {}
    changes = {
        "name": f"{network}_{region}",
        "model.classes": [region],
        "data.folders": [str(Path(folder).absolute()) for folder in folders],
        "training.device": device,
        **(_FAST if fast else {}),
        **narrow,
    }
    return recipes.changed(recipes.read(name), changes, name)


def from_imagenet(jobs: Sequence[Job], backbone: Path, encoder: str) -> tuple[Job, ...]:
    """With ResA-Net's encoder from ImageNet weights, which the paper neither says nor excludes.

    Raises
    ------
    FileNotFoundError
        When there is no such file.
    """
    changes = {"start": recipes.IMAGENET, "backbone": str(backbone.absolute()), "model.encoder": encoder}
    changed = [
        replace(job, recipe=recipes.changed(job.recipe, changes)) if job.recipe.model.family == "resanet" else job
        for job in jobs
    ]
    for job in changed:
        recipes.with_start(job.recipe)  # now, not after hours of the U-Nets
    return tuple(changed)


def draw_embryos(folder: Path, count: int = FAST_PICTURES, shape: tuple[int, int] = FAST_SHAPE) -> Path:
    """Draw blastocysts with their masks, laid out like the set of Saeedi et al."""
    import numpy as np

    from napari_embryo.synthetic import draw_blastocyst

    for name in ("Images", *(f"GT_{region}" for region in CLASSES)):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for seed in range(count):
        embryo = draw_blastocyst(seed, shape)
        for region in CLASSES:
            mask = embryo.masks[region].astype(np.uint8) * 255
            io.write_png(folder / f"GT_{region}" / f"drawn{seed} {region}_Mask.png", mask)
        io.write_png(folder / "Images" / f"drawn{seed}.png", embryo.image)
    return folder


def run(jobs: Sequence[Job]) -> "Generator[Progress, None, pd.DataFrame]":
    """Train and score every network; stop iterating to stop, call again to go on.

    Yields
    ------
    Progress
        ``done`` and ``total`` count epochs of all networks; ``item`` is the scores of a network that was finished.

    Returns
    -------
    pandas.DataFrame
        The rows of :func:`napari_embryo.evaluate.score` of all networks, with the columns ``network`` and ``size``
        (``picture`` or ``net``).
    """
    import pandas as pd

    total = sum(job.recipe.training.epochs for job in jobs)
    tables, done = [], 0
    for job in jobs:
        scores = _finished_scores(job)
        if scores is None:
            scores = yield from _train(job, done, total)
        done += job.recipe.training.epochs
        tables.append(scores)
        mean = 100 * scores.loc[scores["size"] == "picture", "iou"].mean()
        yield Progress(done, total, f"{job.name}: IoU {mean:.2f}", scores)
    return pd.concat(tables, ignore_index=True)


def _finished_scores(job: Job) -> "pd.DataFrame | None":
    """Of a network that was trained before, by this same recipe."""
    import pandas as pd

    if (job.out / "recipe.yaml").is_file() and _lasting(recipes.read(job.out / "recipe.yaml")) != _lasting(job.recipe):
        raise ValueError(
            f"{job.out}: holds a network of other settings or other data; name another folder with --out, or remove it"
        )
    path = job.out / "scores.csv"
    return pd.read_csv(path, dtype={"image": str, "embryo": str, "source": str}) if path.is_file() else None


def _lasting(recipe: Recipe) -> dict[str, Any]:
    """What has to be the same; where it is computed may change."""
    return recipe.model_dump(mode="json", exclude={"training": {"device", "workers"}})


def _train(job: Job, before: int, total: int) -> "Generator[Progress, None, pd.DataFrame]":
    """Train, or go on with it; judge the last weights on the test part, which chose nothing."""
    from napari_embryo.models import checkpoint

    prepared = recipes.prepare(job.recipe)
    training = recipes.run(prepared, job.out, resume=(job.out / "recipe.yaml").is_file())
    try:
        while True:
            step = next(training)
            epochs = job.recipe.training.epochs * step.done // max(1, step.total)
            yield Progress(before + epochs, total, f"{job.name}: {step.message}")
    except StopIteration as end:
        last: Path = end.value.last
    finally:
        training.close()
    scores = score(prepared.split.validation, checkpoint.load(last), job.recipe.training.device)
    scores.insert(0, "network", job.network)
    io.write_csv_atomic(job.out / "scores.csv", scores.to_dict("records"))
    (job.out / "state.safetensors").unlink(missing_ok=True)  # the largest file, and of no use any more
    return scores


def score(samples: "Sequence[Sample]", loaded: "Checkpoint", device: Device = "auto") -> "pd.DataFrame":
    """Rows of :func:`napari_embryo.evaluate.score` at the pictures' own size and at the network's.

    The whole picture is looked at once, unlike in use, where a small embryo gets a second look.
    """
    import pandas as pd

    from napari_embryo.predict import choose_device

    place = choose_device(device)
    model = loaded.model.to(place)
    tables = [_score_one(sample, model, loaded, place) for sample in samples]
    return pd.concat(tables, ignore_index=True)


def _score_one(sample: "Sample", model: Any, loaded: "Checkpoint", place: Any) -> "pd.DataFrame":
    import numpy as np
    import pandas as pd
    import torch

    from napari_embryo import geometry
    from napari_embryo.data import Sample
    from napari_embryo.models import DECODERS

    info, truth = loaded.info, sample.read()
    plan = geometry.plan(truth.image.shape, info.preprocessing.net_hw, info.preprocessing.fit)
    pixels = geometry.network_input(truth.image, plan, info.preprocessing)
    with torch.inference_mode():
        logits = model(torch.from_numpy(pixels)[None].to(place))["logits"][0].float().cpu()
    found = DECODERS[info.model.family](logits, plan, info.model.classes, 0.5).masks
    shrunk = Sample.of(
        sample.name,
        pixels[0],
        np.stack([plan.mask_to_net(mask) for mask in truth.masks]),
        truth.known,
        sample.embryo,
        sample.source,
    )
    at_net = torch.sigmoid(logits).numpy() >= 0.5
    own = evaluate.score([sample], lambda _: found, info.model.classes).assign(size="picture")
    net = evaluate.score([shrunk], lambda _: at_net, info.model.classes).assign(size="net")
    return pd.concat((own, net), ignore_index=True)


def table(scores: "pd.DataFrame") -> "pd.DataFrame":
    """The paper's table in percent: ours, and as published; text, empty where there is nothing."""
    import pandas as pd

    summaries = {size: _by_network(part) for size, part in scores.groupby("size")}
    rows = [
        _row(network, region, summaries, published)
        for network, cells in PUBLISHED.items()
        for region, published in cells.items()
    ]
    return pd.DataFrame(rows)


def _by_network(scores: "pd.DataFrame") -> dict[tuple[str, str], dict[str, float]]:
    """Percent by network and class, with the mean of the classes where all of them are there."""
    per_class = evaluate.summary(scores, ("network", "class"))
    kept: dict[tuple[str, str], dict[str, float]] = {}
    for network, part in per_class.groupby("network"):
        numbers = 100 * part.set_index("class")[["iou", "iou_low", "iou_high", "iou_pooled", "dice", "dice_pooled"]]
        kept |= {(str(network), str(region)): row.to_dict() for region, row in numbers.iterrows()}
        if set(numbers.index) == set(CLASSES):
            kept[str(network), "mean"] = numbers[["iou", "iou_pooled", "dice", "dice_pooled"]].mean().to_dict()
    return kept


def _row(
    network: str,
    region: str,
    summaries: Mapping[str, Mapping[tuple[str, str], Mapping[str, float]]],
    published: tuple[float, float | None],
) -> dict[str, str]:
    own, net = (summaries.get(size, {}).get((network, region), {}) for size in ("picture", "net"))
    return {
        "network": network,
        "region": region,
        "IoU": _percent(own.get("iou")),
        "95 %": f"{own['iou_low']:.1f}-{own['iou_high']:.1f}" if "iou_low" in own else "",
        "pooled": _percent(own.get("iou_pooled")),
        "F1": _percent(own.get("dice")),
        "F1 pooled": _percent(own.get("dice_pooled")),
        "net IoU": _percent(net.get("iou")),
        "net pooled": _percent(net.get("iou_pooled")),
        "net F1": _percent(net.get("dice")),
        "published IoU": _percent(published[0]),
        "published F1": _percent(published[1]),
    }


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
