"""No embryo on two sides, nothing lost, never an empty part, and the bundled weights' choice kept."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_embryo import data
from napari_embryo.data import Sample, Split, split, split_by_embryo
from napari_embryo.settings import BLASTOCYST_CLASSES, DataSettings


def blank(name: str, embryo: str, source: str) -> Sample:
    nothing = np.zeros((8, 8), bool)
    return Sample.of(name, nothing.astype(np.uint8), np.stack([nothing] * 3), embryo=embryo, source=source)


def samples_of(drawn: list[tuple[int, str]]) -> list[Sample]:
    return [blank(f"s{i}", f"e{embryo}", source) for i, (embryo, source) in enumerate(drawn)]


def embryos(part: tuple[Sample, ...] | list[Sample]) -> set[str]:
    return {s.embryo for s in part}


DRAWN = st.lists(st.tuples(st.integers(0, 8), st.sampled_from("abc")), min_size=1, max_size=40)


@given(DRAWN, st.floats(0.01, 0.6), st.sampled_from((0.0, 0.05, 0.39)), st.integers(0, 50))
def test_every_embryo_stands_in_one_part(
    drawn: list[tuple[int, str]], validation: float, test: float, seed: int
) -> None:
    """Also where embryos turn up in several sources; refused exactly where there are fewer embryos than parts."""
    samples = samples_of(drawn)
    settings = DataSettings(validation=validation, test=test, seed=seed)
    needed = 3 if test else 2
    if len(embryos(samples)) < needed:
        with pytest.raises(ValueError, match=f"needs at least {needed}"):
            split(samples, settings)
        return
    made = split(samples, settings)
    check_parts(made, samples, has_test=test > 0)
    assert [s.name for s in split(samples, settings).validation] == [s.name for s in made.validation]


def check_parts(made: Split, samples: list[Sample], has_test: bool) -> None:
    assert made.train
    assert made.validation
    assert bool(made.test) == has_test
    everything = [s.name for part in made.parts.values() for s in part]
    assert sorted(everything) == sorted(s.name for s in samples)
    assert embryos(made.train).isdisjoint(embryos(made.validation))
    assert embryos(made.test).isdisjoint(embryos(made.train) | embryos(made.validation))


@given(DRAWN, st.integers(2, 6), st.sampled_from((0.0, 0.2)), st.integers(0, 50))
def test_folds_validate_on_every_embryo_once(drawn: list[tuple[int, str]], folds: int, test: float, seed: int) -> None:
    samples = samples_of(drawn)
    needed = folds + (test > 0)
    each = [DataSettings(folds=folds, fold=fold, test=test, seed=seed) for fold in range(folds)]
    if len(embryos(samples)) < needed:
        with pytest.raises(ValueError, match=f"{len(embryos(samples))} embryos came.*needs at least {needed}"):
            split(samples, each[0])
        return
    made = [split(samples, settings) for settings in each]
    for one in made:
        check_parts(one, samples, has_test=test > 0)
        assert embryos(one.test) == embryos(made[0].test)
    validated = [embryo for one in made for embryo in embryos(one.validation)]
    assert sorted(validated) == sorted(embryos(samples) - embryos(made[0].test))


def test_folds_are_of_even_size() -> None:
    samples = samples_of([(i, "a") for i in range(13)])
    sizes = [len(split(samples, DataSettings(folds=5, fold=k)).validation) for k in range(5)]
    assert sorted(sizes) == [2, 2, 3, 3, 3]


def test_a_source_with_one_embryo_learns() -> None:
    samples = samples_of([*((i, "many") for i in range(8)), (99, "single")])
    made = split(samples, DataSettings(validation=0.25))
    assert "e99" in embryos(made.train)
    assert len(made.validation) == 2


@pytest.mark.parametrize(("test", "sizes"), [(0.0, [20, 0, 0]), (0.1, [18, 0, 2])])
def test_without_validation_all_others_learn(test: float, sizes: list[int]) -> None:
    made = split(samples_of([(i, "ab"[i % 2]) for i in range(20)]), DataSettings(validation=0, test=test))
    assert [len(part) for part in made.parts.values()] == sizes


def test_a_source_that_only_learns_never_judges_nor_gives_an_embryo_away() -> None:
    people = samples_of([(i, "people") for i in range(12)])
    drawn = [blank(f"d{i}", f"e{i}", "drawn") for i in range(24)]  # half of them show the people's embryos again
    settings = DataSettings(validation=0.25, seed=3)
    alone, both = (
        split(people, settings),
        split([*people, *drawn], settings.model_copy(update={"only_train": ("drawn",)})),
    )
    assert both.validation == alone.validation
    assert not embryos(both.train) & embryos(both.validation)
    assert len(both.train) == len(alone.train) + 24 - len(alone.validation)


def test_a_source_that_is_not_there_cannot_only_learn() -> None:
    with pytest.raises(ValueError, match="only_train names drwan, but the pictures come from a"):
        split(samples_of([(i, "a") for i in range(5)]), DataSettings(only_train=("drwan",)))


def test_the_shares_count_embryos() -> None:
    samples = [blank(f"e{e}-{i}", f"e{e}", "a") for e in range(20) for i in range(3)]
    made = split(samples, DataSettings(validation=0.25, test=0.1))
    assert [len(embryos(part)) for part in made.parts.values()] == [13, 5, 2]


def test_another_seed_splits_otherwise() -> None:
    samples = samples_of([(i, "a") for i in range(20)])
    sides = {tuple(s.name for s in split(samples, DataSettings(seed=seed)).validation) for seed in range(5)}
    assert len(sides) > 1


@given(DRAWN, st.floats(0.01, 0.99), st.integers(0, 50))
def test_a_split_in_two_keeps_its_promise_or_is_refused(drawn: list[tuple[int, str]], share: float, seed: int) -> None:
    """Every source on both sides, or refused; where it can be made, `split` makes the same."""
    samples = samples_of(drawn)
    try:
        train, validation = split_by_embryo(samples, share, seed)
    except ValueError as error:
        assert "embryo" in str(error)  # noqa: PT017 - either outcome is right, a broken promise is not
        return
    assert {s.source for s in train} == {s.source for s in validation} == {s.source for s in samples}
    check_parts(Split(tuple(train), tuple(validation)), samples, has_test=False)
    made = split(samples, DataSettings(validation=share, seed=seed))
    assert [s.name for s in made.validation] == [s.name for s in validation]


def test_too_few_embryos_are_refused_with_the_source() -> None:
    samples = samples_of([(1, "clinic"), (1, "clinic"), (2, "other")])
    with pytest.raises(ValueError, match="clinic: 1 embryo; a split needs at least two"):
        split_by_embryo(samples, 0.2, 0)


def test_the_bundled_weights_validation_embryos_are_kept_aside(data_dir: Path) -> None:
    """The names as they were when those weights were trained: another choice would judge them on what they know."""
    folders = tuple(str(data_dir / "blastocyst" / name) for name in ("annotated", "incubator"))
    found = data.find_samples(DataSettings(folders=folders), BLASTOCYST_CLASSES)
    _, validation = split_by_embryo(found.samples, 0.25, 0)
    names = "\n".join(sorted(s.name for s in validation))
    assert hashlib.sha256(names.encode()).hexdigest()[:16] == "c342c0601b6ac901"
