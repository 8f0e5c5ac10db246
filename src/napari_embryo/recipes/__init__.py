"""Recipes: complete training runs as YAML, which are read, checked against the data and run."""

from napari_embryo.recipes.files import IMAGENET, RANDOM, SUFFIXES, changed, names, parse, read, text, write
from napari_embryo.recipes.preparing import GET_BACKBONE, Prepared, check_backbone, kept_by_start, prepare, with_start
from napari_embryo.recipes.running import check_is_new, first_model, provenance, run
from napari_embryo.settings import Recipe

__all__ = [
    "GET_BACKBONE",
    "IMAGENET",
    "RANDOM",
    "SUFFIXES",
    "Prepared",
    "Recipe",
    "changed",
    "check_backbone",
    "check_is_new",
    "first_model",
    "kept_by_start",
    "names",
    "parse",
    "prepare",
    "provenance",
    "read",
    "run",
    "text",
    "with_start",
    "write",
]
