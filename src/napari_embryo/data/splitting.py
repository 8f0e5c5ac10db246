"""Training, validation and test by embryo: no embryo on two sides."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from napari_embryo.data.sample import Sample
from napari_embryo.settings import DataSettings

_REMEDY = "add annotated embryos, or check that embryos are told apart (embryo_pattern, embryo_table)"


@dataclass(frozen=True, eq=False)
class Split:
    """Who learns, who judges, and who is kept aside."""

    train: tuple[Sample, ...]
    validation: tuple[Sample, ...]
    test: tuple[Sample, ...] = ()

    @property
    def parts(self) -> dict[str, tuple[Sample, ...]]:
        """Samples by the part's name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}


def split(samples: Sequence[Sample], settings: DataSettings) -> Split:
    """Training, validation and test samples, by embryo within each source, the same in every run.

    A source with too few embryos of its own goes to training as a whole. Without a validation share all embryos learn
    that are not kept aside for the test. A source in ``settings.only_train`` learns, except for embryos that judge
    elsewhere. With ``settings.folds``, all embryos that are
    not kept aside for the test are dealt into so many parts, and part ``settings.fold`` validates.

    Raises
    ------
    ValueError
        When there are fewer embryos than parts.
    """
    _check_named(samples, settings)
    if settings.only_train:
        return _with_learners(samples, settings)
    validated = settings.folds > 0 or settings.validation > 0
    parts = (settings.folds or 1 + validated) + (settings.test > 0)
    embryos = {s.embryo for s in samples}
    if len(embryos) < parts:
        raise ValueError(f"{len(embryos)} embryos came; {_wanted(settings)} needs at least {parts}: {_REMEDY}")
    grouped = _by_source(samples)
    for groups in (grouped, {"": sorted(embryos)}):
        validation, test = _chosen(groups, settings)
        made = _assigned(samples, validation, test)
        if made.train and (made.validation or not validated) and (made.test or not settings.test):
            return made
    raise ValueError(f"{len(embryos)} embryos came; too few for {_wanted(settings)}: {_REMEDY}")


def _check_named(samples: Sequence[Sample], settings: DataSettings) -> None:
    sources = {s.source for s in samples}
    if unknown := sorted(set(settings.only_train) - sources):
        raise ValueError(
            f"only_train names {', '.join(unknown)}, but the pictures come from {', '.join(sorted(sources))}"
        )


def _with_learners(samples: Sequence[Sample], settings: DataSettings) -> Split:
    judged = [s for s in samples if s.source not in settings.only_train]
    made = split(judged, settings.model_copy(update={"only_train": ()}))
    aside = {s.embryo for s in (*made.validation, *made.test)}
    learners = {id(s) for s in made.train} | {
        id(s) for s in samples if s.source in settings.only_train and s.embryo not in aside
    }
    return Split(tuple(s for s in samples if id(s) in learners), made.validation, made.test)


def _wanted(settings: DataSettings) -> str:
    test = " with a test part" if settings.test else ""
    whole = "a split in two" if settings.validation else "training"
    return f"{settings.folds}-fold cross-validation{test}" if settings.folds else f"{whole}{test}"


def _by_source(samples: Iterable[Sample]) -> dict[str, list[str]]:
    grouped: dict[str, set[str]] = {}
    for sample in samples:
        grouped.setdefault(sample.source, set()).add(sample.embryo)
    return {source: sorted(grouped[source]) for source in sorted(grouped)}


def _chosen(groups: dict[str, list[str]], settings: DataSettings) -> tuple[set[str], set[str]]:
    """The embryos to validate and to test on."""
    if settings.folds:
        return _fold(groups, settings)
    validation: set[str] = set()
    test: set[str] = set()
    others = (settings.validation > 0) + (settings.test > 0)
    for embryos in groups.values():
        if len(embryos) > others:
            shuffled = _shuffled(embryos, settings.seed)
            count = _count(settings.validation, len(embryos), len(embryos) - others) if settings.validation else 0
            aside = _count(settings.test, len(embryos), len(embryos) - count - 1) if settings.test else 0
            validation |= set(shuffled[:count])
            test |= set(shuffled[count : count + aside])
    return validation, test - validation


def _fold(groups: dict[str, list[str]], settings: DataSettings) -> tuple[set[str], set[str]]:
    """Every embryo that is not kept aside is dealt to exactly one part, source after source."""
    test: set[str] = set()
    if settings.test:
        for embryos in groups.values():
            room = len(embryos) - settings.folds
            test |= set(
                _shuffled(embryos, settings.seed)[: _count(settings.test, len(embryos), room)] if room > 0 else ()
            )
    dealt = list(dict.fromkeys(e for each in groups.values() for e in _shuffled(each, settings.seed) if e not in test))
    return (set(dealt[settings.fold :: settings.folds]) if len(dealt) >= settings.folds else set()), test


def _shuffled(embryos: Sequence[str], seed: int) -> list[str]:
    return [str(embryo) for embryo in np.random.default_rng(seed).permutation(embryos)]


def _count(share: float, total: int, most: int) -> int:
    return min(most, max(1, round(share * total)))


def _assigned(samples: Sequence[Sample], validation: set[str], test: set[str]) -> Split:
    return Split(
        tuple(s for s in samples if s.embryo not in validation | test),
        tuple(s for s in samples if s.embryo in validation),
        tuple(s for s in samples if s.embryo in test),
    )


def split_by_embryo(samples: Sequence[Sample], share: float, seed: int) -> tuple[list[Sample], list[Sample]]:
    """Training and validation samples; no embryo on both sides, every source on both, none empty.

    The validation embryos of the bundled weights come from here: `split` without a test part and without folds chooses
    the same, but lets a source with a single embryo learn.

    Raises
    ------
    ValueError
        When a source has fewer than two embryos, or shares so many with another that one side would lack it.
    """
    chosen: set[str] = set()
    for source, embryos in _by_source(samples).items():
        if len(embryos) < 2:
            raise ValueError(f"{source}: {len(embryos)} embryo; a split needs at least two")
        chosen |= set(_shuffled(embryos, seed)[: _count(share, len(embryos), len(embryos) - 1)])
    train, validation = [s for s in samples if s.embryo not in chosen], [s for s in samples if s.embryo in chosen]
    _check_sources(samples, train, validation)
    return train, validation


def _check_sources(samples: Sequence[Sample], *sides: Sequence[Sample]) -> None:
    """Embryos that stand in two sources can empty one side of one of them."""
    for side in sides:
        lacking = {s.source for s in samples} - {s.source for s in side}
        if lacking or not side:
            raise ValueError(
                f"{', '.join(sorted(lacking)) or 'no samples'}: too few embryos of its own to stand on both sides of "
                "the split; add embryos or choose another seed"
            )
