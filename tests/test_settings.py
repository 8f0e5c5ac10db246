"""Every setting refuses nonsense in words a user understands, and survives a round trip through JSON."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from napari_embryo.families import ResANetSettings, Settings, UNetSettings, network_settings
from napari_embryo.settings import Augmentation, DataSettings, Preprocessing, Recipe, SegmentSettings, TrainSettings

ALL = (
    Augmentation,
    DataSettings,
    Preprocessing,
    Recipe,
    ResANetSettings,
    SegmentSettings,
    TrainSettings,
    UNetSettings,
)


@pytest.mark.parametrize(
    ("kind", "wrong", "says"),
    [
        (Preprocessing, {"height": 8}, ("height", "greater than or equal to 32")),
        (Preprocessing, {"fit": "crop"}, ("fit", "'letterbox' or 'stretch'")),
        (Preprocessing, {"low_percentile": 60}, ("low_percentile", "less than 50")),
        (ResANetSettings, {"width": "huge"}, ("width", "'base' or 'wide'")),
        (ResANetSettings, {"classes": ()}, ("classes", "at least 1")),
        (ResANetSettings, {"head": "softmax"}, ("softmax", "3 classes", "ICM, TE, ZP", "use head='sigmoid'")),
        (UNetSettings, {"base_channels": 1}, ("base_channels", "4")),
        (SegmentSettings, {"threshold": 1}, ("threshold", "less than 1")),
        (SegmentSettings, {"threshold": float("nan")}, ("threshold",)),
        (SegmentSettings, {"batch_size": 0}, ("batch_size", "greater than or equal to 1")),
        (SegmentSettings, {"device": "tpu"}, ("device", "'auto', 'cuda', 'mps' or 'cpu'")),
        (SegmentSettings, {"family": "unknown"}, ("family", "'resanet', 'regdeeplab', 'vqamodal' or 'unet'")),
        (SegmentSettings, {"ratio_weights": "c"}, ("ratio_weights", "resanet", "estimates no ratio")),
        (SegmentSettings, {"cutoff": 0.4}, ("cutoff", "not permitted")),
        (TrainSettings, {"batch_size": 0}, ("batch_size", "1")),
        (TrainSettings, {"epochs": 0}, ("epochs", "1")),
        (DataSettings, {"validation": 0.7, "test": 0.4}, ("0.7", "0.4", "leave nothing to train on", "below 1")),
        (DataSettings, {"folds": 1}, ("fold 0 of 1", "two folds")),
        (DataSettings, {"folds": 3, "fold": 3}, ("fold 3 of 3",)),
        (Augmentation, {"zoom_in": 0.5}, ("zoom_in", "1")),
        (Recipe, {"name": "my model"}, ("name", "pattern")),
        (Recipe, {"model": {"family": "resnet"}}, ("family", "resanet")),
        (Recipe, {"shape_code": "mine"}, ("shape_code: 'mine'", "choose a network that does (vqamodal")),
        (
            Recipe,
            {"shape_code": "mine", "model": {"family": "vqamodal", "head": "fcn"}},
            ("this network draws with none",),
        ),
        (Augmentation, {"hide": 1.5}, ("hide", "1")),
    ],
)
def test_a_wrong_value_is_named_with_what_is_needed(
    kind: type[Settings], wrong: dict[str, object], says: tuple[str, ...]
) -> None:
    with pytest.raises(ValidationError) as caught:
        kind.model_validate(wrong)
    message = str(caught.value)
    assert [word for word in says if word not in message] == []


@pytest.mark.parametrize("kind", ALL)
def test_every_setting_is_explained_and_has_a_default(kind: type[Settings]) -> None:
    kind()
    unexplained = [n for n, field in kind.model_fields.items() if n != "family" and not field.description]
    assert unexplained == []


@pytest.mark.parametrize("kind", ALL)
def test_settings_cannot_be_changed_in_place(kind: type[Settings]) -> None:
    settings = kind()
    with pytest.raises(ValidationError, match="frozen"):
        setattr(settings, next(iter(kind.model_fields)), None)


@given(
    settings=st.one_of(
        st.builds(
            ResANetSettings, width=st.sampled_from(("base", "wide")), sa4=st.booleans(), dropout=st.floats(0, 0.9)
        ),
        st.builds(UNetSettings, base_channels=st.integers(4, 128), classes=st.just(("ICM",))),
    )
)
def test_a_networks_settings_come_back_from_json_as_what_they_were(settings: ResANetSettings | UNetSettings) -> None:
    assert network_settings(json.loads(settings.model_dump_json())) == settings


def test_one_class_may_have_the_papers_softmax() -> None:
    assert ResANetSettings(head="softmax", classes=("ZP",)).classes == ("ZP",)
