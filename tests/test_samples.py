"""Sample data: calibrated image layers, and the truth in the same place."""

import subprocess
import sys

import numpy as np
import pytest

from napari_embryo import measure, samples

SAMPLES = {"blastocyst": samples.blastocyst, "cleavage": samples.cleavage, "timelapse": samples.timelapse}


@pytest.fixture(scope="module", params=list(SAMPLES))
def layers(request: pytest.FixtureRequest) -> list[samples.LayerData]:
    return SAMPLES[request.param]()


def test_layers_are_calibrated_and_named_apart(layers: list[samples.LayerData]) -> None:
    names = [about["name"] for _, about, _ in layers]
    assert len(set(names)) == len(names)
    for data, about, _ in layers:
        assert len(about["scale"]) == len(about["units"]) == len(about["axis_labels"]) == data.ndim
        assert about["units"][-2:] == ("um", "um")
        assert about["axis_labels"][-2:] == ("y", "x")
        assert all(0 < scale < 3 for scale in about["scale"][-2:])


def test_truth_lies_hidden_on_its_image(layers: list[samples.LayerData]) -> None:
    images = {about["name"]: (data, about) for data, about, kind in layers if kind == "image"}
    truths = [(data, about) for data, about, kind in layers if kind == "labels"]
    assert truths
    for data, about in truths:
        name = next(name for name in images if about["name"].startswith(name))
        picture, shown = images[name]
        assert data.shape == picture.shape
        assert np.issubdtype(data.dtype, np.integer)
        assert data.any()
        assert not about["visible"]
        for key in ("scale", "translate", "units", "axis_labels"):
            assert about[key] == shown[key]


def test_blastocyst_labels_are_1_2_3() -> None:
    (_, _, image_kind), (labels, about, _) = samples.blastocyst()
    assert image_kind == "image"
    assert set(np.unique(labels)) == {0, 1, 2, 3}
    assert about["metadata"]["classes"] == ("ICM", "TE", "ZP")


def test_every_cell_of_the_cleavage_sample_is_a_layer_since_they_overlap() -> None:
    cells = [data for data, about, _ in samples.cleavage() if "cell " in about["name"]]
    assert len(cells) == 4
    assert (np.sum(cells, axis=0) > 1).any()


def test_the_cleavage_sample_has_its_fragments_as_a_network_labels_them() -> None:
    labels, about, _ = samples.cleavage()[-1]
    assert about["metadata"]["classes"] == ("fragment", "embryo")
    row = measure.measure_labels(labels, ("fragment", "embryo"))[0]
    assert row["ratio_from_mask"] == pytest.approx(samples.FRAGMENTED, abs=0.02)
    assert row["grade"] == "B"


def test_timelapse_has_two_wells_side_by_side_in_hours() -> None:
    images = [(data, about) for data, about, kind in samples.timelapse() if kind == "image"]
    assert len(images) == 2
    (first, left), (second, right) = images
    assert first.shape == second.shape
    assert first.ndim == 3
    assert left["units"][0] == "hour"
    assert left["scale"][0] > 1
    assert right["translate"][-1] - left["translate"][-1] >= first.shape[-1] * left["scale"][-1]
    assert right["translate"][0] == left["translate"][0] > 0


def test_napari_accepts_every_layer(layers: list[samples.LayerData]) -> None:
    from napari.layers import Layer

    for layer in layers:
        created = Layer.create(*layer)
        np.testing.assert_allclose(created.scale, layer[1]["scale"])
        assert created.axis_labels == layer[1]["axis_labels"]


@pytest.mark.parametrize("module", ["samples", "measure", "synthetic"])
def test_importing_is_light(module: str) -> None:
    heavy = "{'skimage', 'scipy', 'torch', 'napari', 'dask', 'tifffile', 'pandas'}"
    code = f"import sys, napari_embryo.{module}; print(sorted({heavy} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
