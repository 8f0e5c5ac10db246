"""Training, validation and test by embryo: no embryo on two sides."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from types import MappingProxyType
from typing import Any

from napari_embryo.data.embryos import digest
from napari_embryo.data.sample import Sample
from napari_embryo.settings import DataSettings

_REMEDY = "add annotated embryos, or check that embryos are told apart (embryo_pattern, embryo_table)"
_NOTHING: Mapping[str, str] = MappingProxyType({})
PARTS = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class Split:
    """The samples for training, validation and test."""

    train: tuple[Sample, ...]
    validation: tuple[Sample, ...]
    test: tuple[Sample, ...] = ()

    @property
    def parts(self) -> dict[str, tuple[Sample, ...]]:
        """Samples by the part's name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}


def digests(split: Split) -> dict[str, list[str]]:
    """Digests of the embryos of every part for weights: ``{"train": [...], "validation": [...], "test": [...]}``."""
    return {part: sorted({digest(s.embryo) for s in side}) for part, side in split.parts.items()}


def kept_parts(provenance: Mapping[str, Any]) -> dict[str, str]:
    """Digest of an embryo -> its part, when the weights of this provenance were trained; empty if unknown."""
    told = provenance.get("embryos")
    if not isinstance(told, Mapping):
        return {}
    return {str(each): part for part in PARTS for each in told.get(part) or ()}


def split(samples: Sequence[Sample], settings: DataSettings, kept: Mapping[str, str] = _NOTHING) -> Split:
    """Training, validation and test samples, by embryo within each source, the same in every run.

    A source with too few embryos is used for training as a whole. Without a validation share, all embryos outside the
    test part are used for training. A source in ``settings.only_train`` is used for training, except for embryos in
    validation or test elsewhere. With ``settings.folds``, all embryos outside the test part are dealt into that many
    parts, and part ``settings.fold`` is used for validation. A source in ``settings.only_validation`` is used for
    validation, whatever the share and the fold, and so are its embryos in other sources, except that sources for
    training only leave them out.

    Parameters
    ----------
    samples, settings
        The samples, and how to split them.
    kept
        Digest of an embryo -> the part it must stay in, from :func:`kept_parts` of the starting weights: their training
        data cannot be used for validation. The others are split as usual; in a cross-validation, so are their
        validation embryos. Ignored if a requested part would be empty.

    Raises
    ------
    ValueError
        If there are fewer embryos than parts, or a named source does not exist.
    """
    _check_named(samples, settings)
    return (_with_judges if settings.only_validation else _with_learners)(samples, settings, kept)


def judging_alone(samples: Iterable[Sample], settings: DataSettings) -> set[str]:
    """The embryos of sources that are only for validation."""
    return {s.embryo for s in samples if s.source in settings.only_validation}


def _by_shares(samples: Sequence[Sample], settings: DataSettings, kept: Mapping[str, str]) -> Split:
    validated = settings.folds > 0 or settings.validation > 0
    parts = (settings.folds or 1 + validated) + (settings.test > 0)
    embryos = {s.embryo for s in samples}
    if len(embryos) < parts:
        raise ValueError(f"found {_counted(len(embryos))}, but {_wanted(settings)} needs at least {parts}: {_REMEDY}")
    grouped = _by_source(samples)
    for held in (_held(embryos, settings, kept), {}):
        for groups in (grouped, {"": sorted(embryos)}):
            made = _assigned(samples, *_chosen(_free(groups, held), settings), held)
            if made.train and (made.validation or not validated) and (made.test or not settings.test):
                return made
    raise ValueError(f"found {_counted(len(embryos))}, too few for {_wanted(settings)}: {_REMEDY}")


def _counted(embryos: int) -> str:
    return "1 embryo" if embryos == 1 else f"{embryos} embryos"


def _held(embryos: Iterable[str], settings: DataSettings, kept: Mapping[str, str]) -> dict[str, str]:
    """Embryo -> the part it must stay in."""
    heeded = {"train", "test"} if settings.folds or not settings.validation else set(PARTS)
    parts = {embryo: kept.get(digest(embryo)) for embryo in embryos} if kept else {}
    return {embryo: part for embryo, part in parts.items() if part in heeded}


def _free(groups: Mapping[str, Sequence[str]], held: Mapping[str, str]) -> dict[str, list[str]]:
    return {source: [embryo for embryo in each if embryo not in held] for source, each in groups.items()}


def _check_named(samples: Sequence[Sample], settings: DataSettings) -> None:
    sources = {s.source for s in samples}
    for field in ("only_train", "only_validation"):
        if unknown := sorted(set(getattr(settings, field)) - sources):
            raise ValueError(
                f"{field} names {', '.join(unknown)}, but the images come from {', '.join(sorted(sources))}"
            )


def _with_judges(samples: Sequence[Sample], settings: DataSettings, kept: Mapping[str, str]) -> Split:
    judging = judging_alone(samples, settings)
    rest = [s for s in samples if s.embryo not in judging]
    if not rest:
        raise ValueError(
            f"nothing is left to train on: every embryo is one of {', '.join(settings.only_validation)}, which "
            f"only_validation names; {_REMEDY}"
        )
    made = _beside_judges(rest, settings, kept)
    validating = {id(s) for s in made.validation} | {
        id(s) for s in samples if s.embryo in judging and s.source not in settings.only_train
    }
    return Split(made.train, tuple(s for s in samples if id(s) in validating), made.test)


def _beside_judges(rest: Sequence[Sample], settings: DataSettings, kept: Mapping[str, str]) -> Split:
    """Split without a validation share, since other sources are used for validation."""
    embryos = {s.embryo for s in rest if s.source not in settings.only_train}
    if not (embryos or settings.test or settings.folds):
        return Split(tuple(rest), ())
    enough = len(embryos) > 1 + (settings.test > 0)
    return _with_learners(rest, settings if enough else settings.model_copy(update={"validation": 0.0}), kept)


def _with_learners(samples: Sequence[Sample], settings: DataSettings, kept: Mapping[str, str]) -> Split:
    if not settings.only_train:
        return _by_shares(samples, settings, kept)
    judged = [s for s in samples if s.source not in settings.only_train]
    made = _by_shares(judged, settings, kept)
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
    """Deal every embryo outside the test part to exactly one part, source by source."""
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
    """Order embryos randomly by a fixed key each: one more embryo moves the others by at most one place."""
    return sorted(embryos, key=lambda embryo: sha256(f"{seed}/{embryo}".encode()).digest())


def _count(share: float, total: int, most: int) -> int:
    return min(most, max(1, round(share * total)))


def _assigned(samples: Sequence[Sample], validation: set[str], test: set[str], held: Mapping[str, str]) -> Split:
    parts = {**dict.fromkeys(test, "test"), **dict.fromkeys(validation, "validation"), **held}
    return Split(*(tuple(s for s in samples if parts.get(s.embryo, "train") == part) for part in PARTS))
