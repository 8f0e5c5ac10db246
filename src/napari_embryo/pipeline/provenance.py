"""Provenance of a result."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from napari_embryo import __version__
from napari_embryo.image import EmbryoImage
from napari_embryo.predict import Predictor

KEPT = ("focus", "focus_plane", "runs", "frame_files")
"""Metadata of an image that its results keep."""


def provenance_of(image: EmbryoImage, predictor: Predictor) -> dict[str, Any]:
    """Provenance stored in every result."""
    return {
        "program": f"napari-embryo {__version__}",
        "family": predictor.info.model.family,
        "weights": predictor.settings.weights,
        "weights_sha256": predictor.sha256,
        **({"ratio_weights_sha256": predictor.quantifier.sha256} if predictor.quantifier else {}),
        "settings": predictor.settings.model_dump(mode="json"),
        "source": _source(image),
        **{name: image.metadata[name] for name in KEPT if name in image.metadata},
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _source(image: EmbryoImage) -> str:
    """Absolute path of the source, for use of the results from other folders."""
    path = image.metadata.get("source")
    return str(Path(path).absolute()) if path else image.name
