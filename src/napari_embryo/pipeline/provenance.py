"""Where a result comes from."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from napari_embryo import __version__
from napari_embryo.image import EmbryoImage
from napari_embryo.predict import Predictor

KEPT = ("focus", "focus_plane", "runs", "frame_files")
"""What a result keeps of the metadata of its image."""


def provenance_of(image: EmbryoImage, predictor: Predictor) -> dict[str, Any]:
    """What every result says of its origin."""
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
    """Where it lies, for whoever opens the results from elsewhere."""
    path = image.metadata.get("source")
    return str(Path(path).absolute()) if path else image.name
