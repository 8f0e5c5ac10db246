"""The order of samples, and batches prepared ahead of the network."""

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
"""An epoch and the index of a sample in the training set."""

AHEAD = 2


def visited(samples: Sequence[Sample], repeats: Mapping[str, int]) -> list[Sample]:
    """Repeat every sample as many times as an epoch visits it."""
    sources = {sample.source for sample in samples}
    if unknown := sorted(repeats.keys() - sources):
        raise ValueError(
            f"repeats names {', '.join(unknown)}, but the training images come from {', '.join(sorted(sources))}"
        )
    return [sample for sample in samples for _ in range(repeats.get(sample.source, 1))]


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Number of full batches; a last batch of one image would spoil batch normalization."""
    return max(1, count // batch_size)


def epoch_of_visits(count: int, batch_size: int, seed: int, epoch: int) -> list[list[Visit]]:
    """The batches of an epoch in its own random order; a single batch if there are fewer samples than fill one."""
    places, size = order(count, seed, epoch), min(count, batch_size)
    return [[(epoch, i) for i in places[k * size : (k + 1) * size]] for k in range(steps_per_epoch(count, batch_size))]


def in_order(count: int, batch_size: int) -> list[list[Visit]]:
    """Batches that visit every sample once."""
    return [[(0, i) for i in range(k, min(k + batch_size, count))] for k in range(0, count, batch_size)]


class _Visits(Dataset[Batch]):
    """A training set indexed by epoch and position, so that worker processes need not be told the epoch."""

    def __init__(self, items: TrainingSet) -> None:
        self.items = items

    def __getitem__(self, visit: Visit) -> Batch:
        return self.items.item(*visit)


def prepared(
    items: TrainingSet, visits: Iterable[list[Visit]], workers: int = 0
) -> Generator[tuple[list[Visit], Batch], None, None]:
    """Batches with their visits; the next ones are prepared while one is in use.

    Parameters
    ----------
    items
        The samples to load.
    visits
        One list per batch.
    workers
        Processes that prepare batches; 0 uses a thread of this one. The batches do not depend on it.
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
    """Pad to the cell count of the fullest image in the batch; added cells are empty."""
    named = {name: item[name] for name in ("cells", "visible") if name in item}
    return {**item, **{name: pad(masks, (0, 0, 0, 0, 0, cells - len(masks))) for name, masks in named.items()}}


def visits_of(model: Network, samples: Sequence[Sample]) -> list[Sample]:
    """The samples an epoch visits: single cells for a network that learns silhouettes, otherwise images."""
    return list(samples) if model.settings.silhouette_side is None else of_cells(samples)


def items_for(
    model: Network,
    samples: Sequence[Sample],
    preprocessing: Preprocessing,
    augmentation: Augmentation | None = None,
    seed: int = 0,
) -> TrainingSet:
    """Samples as the network learns from them, or is validated on them if there is no augmentation.

    Parameters
    ----------
    model
        Its settings decide what a sample is.
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
