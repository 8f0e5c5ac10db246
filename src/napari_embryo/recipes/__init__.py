"""Recipes: complete training runs as YAML, which are read, checked against the data and run."""

from napari_embryo.recipes.files import IMAGENET, RANDOM, SUFFIXES, changed, names, parse, read, text, write
from napari_embryo.recipes.preparing import GET_BACKBONE, Prepared, Started, check_backbone, prepare, with_start
from napari_embryo.recipes.running import check_is_new, first_model, provenance, run
from napari_embryo.settings import Recipe

__all__ = [
    "GET_BACKBONE",
    "IMAGENET",
    "RANDOM",
    "SUFFIXES",
    "Prepared",
    "Recipe",
    "Started",
    "changed",
    "check_backbone",
    "check_is_new",
    "first_model",
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
