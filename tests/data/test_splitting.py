"""No embryo on two sides, nothing lost, never an empty part, and what a start learned from never judges."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from napari_embryo.data import Sample, Split, digest, digests, kept_parts, split
from napari_embryo.settings import DataSettings


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
        with pytest.raises(ValueError, match=f"^found {len(embryos(samples))} embryos?, .*needs at least {needed}"):
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


@pytest.mark.parametrize(("count", "found"), [(1, "found 1 embryo, "), (2, "found 2 embryos, ")])
def test_too_few_are_counted_in_words_that_fit(count: int, found: str) -> None:
    with pytest.raises(ValueError, match=f"^{found}"):
        split(samples_of([(i, "a") for i in range(count)]), DataSettings(validation=0.2, test=0.2))


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


@pytest.mark.parametrize("side", ["only_train", "only_validation"])
def test_a_source_that_is_not_there_has_no_side(side: str) -> None:
    with pytest.raises(ValueError, match=f"{side} names drwan, but the images come from a"):
        split(samples_of([(i, "a") for i in range(5)]), DataSettings(**{side: ("drwan",)}))


@given(DRAWN, st.sampled_from(({}, {"validation": 0.0}, {"folds": 2, "fold": 1}, {"test": 0.2})))
def test_a_source_that_only_judges_is_never_learned_from(drawn: list[tuple[int, str]], shares: dict[str, Any]) -> None:
    """Nor are its embryos, wherever they lie; the others are split as if it were not there."""
    enough = [(100, "b"), *((i, "a") for i in (101, 102, 103))]
    samples = samples_of([*drawn, *enough])
    judging = embryos([s for s in samples if s.source == "b"])
    others = [s for s in samples if s.embryo not in judging]
    settings = DataSettings(**shares)
    made = split(samples, settings.model_copy(update={"only_validation": ("b",)}))
    check_parts(made, samples, has_test="test" in shares)
    alone = split(others, settings)
    assert (made.train, made.test) == (alone.train, alone.test)
    assert embryos(made.validation) == judging | embryos(alone.validation)


OTHERS: dict[str, dict[str, tuple[int, ...]]] = {  # source -> its embryos; "judge" has 0 to 2
    "strangers": {"own": (10, 11, 12)},
    "one stranger": {"own": (10,)},
    "one in both": {"own": (2, 10)},
    "drawn": {"drawn": (10, 11, 12)},
    "drawn, one in both": {"drawn": (2, 10)},
    "one stranger and drawn": {"own": (10,), "drawn": (11, 12)},
}


@pytest.mark.parametrize(
    ("others", "validation", "learned", "judged"),
    [
        ("strangers", 0.0, {10, 11, 12}, {"judge": 3}),
        ("strangers", 0.34, None, {"judge": 3, "own": 1}),
        ("one stranger", 0.2, {10}, {"judge": 3}),
        ("one in both", 0.2, {10}, {"judge": 3, "own": 1}),
        ("drawn", 0.2, {10, 11, 12}, {"judge": 3}),
        ("drawn, one in both", 0.2, {10}, {"judge": 3}),
        ("one stranger and drawn", 0.2, {10, 11, 12}, {"judge": 3}),
    ],
)
def test_who_learns_beside_a_source_that_only_judges(
    others: str, validation: float, learned: set[int] | None, judged: dict[str, int]
) -> None:
    drawn = [*((i, "judge") for i in range(3)), *((i, source) for source, each in OTHERS[others].items() for i in each)]
    only_train = ("drawn",) if "drawn" in OTHERS[others] else ()
    settings = DataSettings(validation=validation, only_train=only_train, only_validation=("judge",))
    made = split(samples_of(drawn), settings)
    assert Counter(s.source for s in made.validation) == judged
    assert embryos(made.train).isdisjoint(embryos(made.validation))
    assert learned is None or embryos(made.train) == {f"e{i}" for i in learned}


def test_what_the_start_learned_from_judges_where_that_is_asked_for() -> None:
    """The report tells that the scores flatter."""
    samples = samples_of([*((i, "judge") for i in range(3)), *((i, "own") for i in range(5, 9))])
    kept = {digest(f"e{i}"): "train" for i in range(9)}
    made = split(samples, DataSettings(validation=0, only_validation=("judge",)), kept)
    assert embryos(made.validation) == {"e0", "e1", "e2"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"only_validation": ("a", "b")}, "nothing is left to train on: every embryo is one of a, b, which"),
        ({"only_validation": ("b",)}, "nothing is left to train on: every embryo is one of b, which"),
        ({"only_validation": ("c",), "only_train": ("a", "b"), "test": 0.2}, "^found 0 embryos.*needs at least 2"),
        ({"only_validation": ("c",), "folds": 4}, "^found 3 embryos, but 4-fold cross-validation needs at least 4"),
    ],
)
def test_too_little_beside_a_source_that_only_judges_is_refused(settings: dict[str, Any], message: str) -> None:
    samples = samples_of([(i, source) for i in range(3) for source in "ab"])
    if "c" in settings["only_validation"]:
        samples.append(blank("c", "c", "c"))
    with pytest.raises(ValueError, match=message):
        split(samples, DataSettings(**settings))


def test_a_source_cannot_both_learn_alone_and_judge_alone() -> None:
    with pytest.raises(ValueError, match="only_train and only_validation both name b; a folder can be in only one"):
        DataSettings(only_train=("a", "b"), only_validation=("b", "c"))


def test_the_shares_count_embryos() -> None:
    samples = [blank(f"e{e}-{i}", f"e{e}", "a") for e in range(20) for i in range(3)]
    made = split(samples, DataSettings(validation=0.25, test=0.1))
    assert [len(embryos(part)) for part in made.parts.values()] == [13, 5, 2]


def test_another_seed_splits_otherwise() -> None:
    samples = samples_of([(i, "a") for i in range(20)])
    sides = {tuple(s.name for s in split(samples, DataSettings(seed=seed)).validation) for seed in range(5)}
    assert len(sides) > 1


def test_one_more_embryo_moves_the_boundary_only() -> None:
    """Of 19 embryos 5 validate, of 20 still 5: the new one takes the place of one at most."""
    settings = DataSettings(validation=0.25)
    for new in range(20):
        samples = samples_of([(i, "a") for i in range(20)])
        before = embryos(split([s for s in samples if s.embryo != f"e{new}"], settings).validation)
        assert len(before - embryos(split(samples, settings).validation)) <= 1


KEPT = st.dictionaries(st.integers(0, 8), st.sampled_from(("train", "validation", "test")))


@given(DRAWN, KEPT, st.sampled_from((0.2, 0.5)), st.sampled_from((0.0, 0.2)), st.integers(0, 20))
def test_each_stays_in_its_part_where_every_part_can_be_filled(
    drawn: list[tuple[int, str]], kept: dict[int, str], validation: float, test: float, seed: int
) -> None:
    """Else the split is the one that is made of strangers."""
    samples, settings = samples_of(drawn), DataSettings(validation=validation, test=test, seed=seed)
    assume(len(embryos(samples)) >= (3 if test else 2))
    made = split(samples, settings, {digest(f"e{i}"): part for i, part in kept.items()})
    check_parts(made, samples, has_test=bool(made.test))
    there = {f"e{i}": part for i, part in kept.items() if f"e{i}" in embryos(samples)}
    stays = all(embryo in embryos(made.parts[part]) for embryo, part in there.items())
    asked = {"train", "validation", *(["test"] if test else [])}
    strangers = len(embryos(samples)) - len(there)
    if asked <= set(there.values()) or strangers >= 3:
        assert stays
    assert stays or made.validation == split(samples, settings).validation


def test_with_every_judge_known_the_split_is_made_without() -> None:
    samples = samples_of([(i, "a") for i in range(8)])
    everything = {digest(f"e{i}"): "train" for i in range(8)}
    assert split(samples, DataSettings(), everything).validation == split(samples, DataSettings()).validation


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        (DataSettings(validation=0.25), 2),
        (DataSettings(validation=0.25, only_train=("drawn",)), 2),
        (DataSettings(validation=0), 0),
        (DataSettings(folds=3), 3),
    ],
)
def test_what_the_start_learned_from_stays_with_the_learners(settings: DataSettings, count: int) -> None:
    """Of ten embryos 1 to 7 were learned from, 0 validated; 8 and 9 are new: one of them judges, in folds both."""
    samples = [*samples_of([(i, "people") for i in range(10)]), *(blank(f"d{i}", f"e{i}", "drawn") for i in range(3))]
    kept = {digest(f"e{i}"): "train" for i in range(1, 8)} | {digest("e0"): "validation"}
    folds = [settings.model_copy(update={"fold": k}) for k in range(settings.folds)] or [settings]
    judged = set().union(*(embryos(split(samples, each, kept).validation) for each in folds))
    assert len(judged) == count
    assert judged <= {"e0", "e8", "e9"}
    assert "e0" in judged or not count


def test_the_lists_of_weights_come_back() -> None:
    made = split(samples_of([(i % 6, "a") for i in range(12)]), DataSettings(validation=0.3, test=0.2))
    kept = kept_parts({"embryos": digests(made)})
    assert kept == {digest(s.embryo): part for part, side in made.parts.items() for s in side}
    assert kept_parts({"recipe": {}}) == {}
