"""Which pictures come when, and their batches prepared ahead of the network."""

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from itertools import islice, tee

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.data import DataLoader, Dataset, default_collate

from napari_embryo.augment import TrainingSet, order
from napari_embryo.data import Sample
from napari_embryo.families import FAMILIES
from napari_embryo.models import Network
from napari_embryo.settings import Augmentation, Preprocessing
from napari_embryo.train.silhouette_dataset import Silhouettes, of_cells

Batch = dict[str, Tensor]
Visit = tuple[int, int]
"""An epoch, and the place of a picture in the training set."""

AHEAD = 2


def visited(samples: Sequence[Sample], repeats: Mapping[str, int]) -> list[Sample]:
    """Every sample as many times as an epoch visits it."""
    sources = {sample.source for sample in samples}
    if unknown := sorted(repeats.keys() - sources):
        raise ValueError(
            f"repeats names {', '.join(unknown)}, but the training pictures come from {', '.join(sorted(sources))}"
        )
    return [sample for sample in samples for _ in range(repeats.get(sample.source, 1))]


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Whole batches only: a last one of one picture would spoil batch normalization."""
    return max(1, count // batch_size)


def epoch_of_visits(count: int, batch_size: int, seed: int, epoch: int) -> list[list[Visit]]:
    """The batches of an epoch, in an order of its own; all pictures in one where they are fewer than a batch."""
    places, size = order(count, seed, epoch), min(count, batch_size)
    return [[(epoch, i) for i in places[k * size : (k + 1) * size]] for k in range(steps_per_epoch(count, batch_size))]


def in_order(count: int, batch_size: int) -> list[list[Visit]]:
    """Every picture once."""
    return [[(0, i) for i in range(k, min(k + batch_size, count))] for k in range(0, count, batch_size)]


class _Visits(Dataset[Batch]):
    """A training set asked by epoch and place, so that a worker process needs no word about the epoch."""

    def __init__(self, items: TrainingSet) -> None:
        self.items = items

    def __getitem__(self, visit: Visit) -> Batch:
        return self.items.item(*visit)


def prepared(
    items: TrainingSet, visits: Iterable[list[Visit]], workers: int = 0
) -> Generator[tuple[list[Visit], Batch], None, None]:
    """Batches with the visits they were made of, the next ones being prepared while one is used.

    Parameters
    ----------
    items
        Where they come from.
    visits
        One list per batch.
    workers
        Processes that prepare them; 0: a thread of this one. What comes does not depend on it.
    """
    if workers:
        known, asked = tee(visits)
        loader: DataLoader[Batch] = DataLoader(
            _Visits(items),
            batch_sampler=asked,
            num_workers=workers,
            collate_fn=_collate,
        )
        yield from zip(known, loader, strict=True)
        return
    with closing(_by_a_thread(items, iter(visits))) as batches:
        yield from batches


def _by_a_thread(items: TrainingSet, visits: Iterator[list[Visit]]) -> Generator[tuple[list[Visit], Batch], None, None]:
    pool = ThreadPoolExecutor(1, thread_name_prefix="batches")
    make = partial(_make, items)
    try:
        pending = deque(pool.submit(make, these) for these in islice(visits, AHEAD))
        while pending:
            batch = pending.popleft().result()
            pending.extend(pool.submit(make, these) for these in islice(visits, 1))
            yield batch
    finally:
        pool.shutdown(cancel_futures=True)


def _make(items: TrainingSet, visits: list[Visit]) -> tuple[list[Visit], Batch]:
    return visits, _collate([items.item(*visit) for visit in visits])


def _collate(items: Sequence[Batch]) -> Batch:
    plain = [{name: value.as_subclass(Tensor) for name, value in item.items()} for item in items]
    most = max(len(item.get("cells", ())) for item in plain)
    batch: Batch = default_collate([_padded(item, most) for item in plain])
    batch["image"] = batch["image"].contiguous(memory_format=torch.channels_last)
    return batch


def _padded(item: Batch, cells: int) -> Batch:
    """With as many cells as the fullest picture of the batch; those that are added have no pixel."""
    named = {name: item[name] for name in ("cells", "visible") if name in item}
    return {**item, **{name: pad(masks, (0, 0, 0, 0, 0, cells - len(masks))) for name, masks in named.items()}}


def visits_of(model: Network, samples: Sequence[Sample]) -> list[Sample]:
    """What an epoch visits: of a network that learns silhouettes every cell on its own, else every picture."""
    return list(samples) if model.settings.silhouette_side is None else of_cells(samples)


def items_for(
    model: Network,
    samples: Sequence[Sample],
    preprocessing: Preprocessing,
    augmentation: Augmentation | None = None,
    seed: int = 0,
) -> TrainingSet:
    """Samples as the network learns from them, or is judged by them where nothing is altered.

    Parameters
    ----------
    model
        Whose settings say what that is.
    samples
        From :func:`visits_of`.
    preprocessing, augmentation, seed
        As for :class:`napari_embryo.augment.TrainingSet`.
    """
    side = model.settings.silhouette_side
    if side is not None:
        return Silhouettes(samples, side, augmentation, seed)
    needs_cells = FAMILIES[model.settings.family].needs_cells
    return TrainingSet(samples, preprocessing, augmentation, seed, cells=needs_cells)
