"""Table 1 of the ResA-Net paper: U-Net and ResA-Net, one network per class."""

from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_embryo import drawing, evaluate, recipes
from napari_embryo.image import Progress
from napari_embryo.reproduce.engine import Job, PaperTable, span, trained
from napari_embryo.settings import Device, Recipe

if TYPE_CHECKING:
    import pandas as pd

    from napari_embryo.data import Sample
    from napari_embryo.models.checkpoint import Checkpoint

NETWORKS = {"U-Net": "resanet-table1-unet", "ResA-Net": "resanet-table1-resanet"}
CLASSES = ("ZP", "TE", "ICM")
"""Classes in the order of the paper's table."""

Cells = Mapping[str, tuple[float, float | None]]
PUBLISHED: dict[str, Cells] = {
    "U-Net": {"ZP": (79.10, 88.33), "TE": (71.66, 83.49), "ICM": (76.33, 86.57), "mean": (75.69, None)},
    "BlastNet": {"ZP": (81.15, None), "TE": (76.52, None), "ICM": (81.07, None), "mean": (79.58, None)},
    "MASS-Net": {"ZP": (84.69, None), "TE": (79.08, None), "ICM": (85.88, None), "mean": (83.22, None)},
    "ECS-Net": {"ZP": (85.34, None), "TE": (78.43, None), "ICM": (85.26, None), "mean": (83.01, None)},
    "FSBS-Net": {"ZP": (85.80, 92.29), "TE": (80.17, 88.90), "ICM": (85.55, 92.0), "mean": (83.84, None)},
    "ResA-Net": {"ZP": (86.87, 92.72), "TE": (81.10, 88.88), "ICM": (83.09, 90.09), "mean": (83.68, None)},
}
"""IoU and F1 in percent as printed in the paper's Table 1."""

NOTES = (
    "All in percent. published: as printed in the ResA-Net paper's Table 1, not reproduced.",
    "IoU, F1: mean over the test images at their own size, with a 95 % bootstrap interval over embryos;",
    "pooled: over all their pixels; net: at the network's size. The paper does not say which of these it prints:",
    "its U-Net rows agree with pooled numbers (F1 = 2 IoU / (1 + IoU) for each class), its ResA-Net rows do not.",
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


def draw(folder: Path) -> Path:
    """Draw a few small blastocysts."""
    return drawing.draw_blastocysts(folder, FAST_PICTURES, FAST_SHAPE)


def jobs(folders: Sequence[str], out: Path, fast: bool, device: Device) -> tuple[Job, ...]:
    """The six networks of the table."""
    return tuple(
        Job(
            network,
            f"{network} {region}",
            _recipe(network, name, region, folders, fast, device),
            out / f"{network}_{region}",
            _train,
            _said,
        )
        for network, name in NETWORKS.items()
        for region in CLASSES
    )


def _recipe(network: str, name: str, region: str, folders: Sequence[str], fast: bool, device: Device) -> Recipe:
    narrow = {"model.base_channels": 8} if fast and network == "U-Net" else {}
    changes = {
        "name": f"{network}_{region}",
        "model.classes": [region],
        "data.folders": list(folders),
        "training.device": device,
        **(_FAST if fast else {}),
        **narrow,
    }
    return recipes.changed(recipes.read(name), changes, name)


def _train(job: Job) -> "Generator[Progress, None, pd.DataFrame]":
    return trained(job, lambda prepared, loaded, device: score(prepared.split.validation, loaded, device))


def _said(scores: "pd.DataFrame") -> str:
    return f"IoU {100 * scores.loc[scores['size'] == 'picture', 'iou'].mean():.2f}"


def score(samples: "Sequence[Sample]", loaded: "Checkpoint", device: Device = "auto") -> "pd.DataFrame":
    """Rows of :func:`napari_embryo.evaluate.score` at the pictures' own size and at the network's.

    The whole image is seen once; in regular use a small embryo gets a second, closer look.
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
    from napari_embryo.models.binary_loss import decode

    info, truth = loaded.info, sample.read()
    plan = geometry.plan(truth.image.shape, info.preprocessing.net_hw, info.preprocessing.fit)
    pixels = geometry.network_input(truth.image, plan, info.preprocessing)
    with torch.inference_mode():
        logits = model(torch.from_numpy(pixels)[None].to(place))["logits"][0].float().cpu()
    found, _ = decode(logits, plan, info.model.classes, 0.5)
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
    """The paper's table in percent, ours beside the published numbers, as text; empty where there is none."""
    import pandas as pd

    summaries = {size: _by_network(part) for size, part in scores.groupby("size")}
    rows = [
        _row(network, region, summaries, published)
        for network, cells in PUBLISHED.items()
        for region, published in cells.items()
    ]
    return pd.DataFrame(rows)


def _by_network(scores: "pd.DataFrame") -> dict[tuple[str, str], dict[str, float]]:
    """Percent by network and class, with the mean over the classes if all are present."""
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
        "95 %": span(own["iou_low"], own["iou_high"], ".1f") if "iou_low" in own else "",
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


TABLE = PaperTable("annotated blastocysts", draw, jobs, table, NOTES)
