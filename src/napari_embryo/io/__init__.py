"""Read and write images, stacks, folders and tables, without torch and without a window."""

from napari_embryo.io.atomic import replacing, write_csv_atomic, write_png
from napari_embryo.io.cells import written_layers
from napari_embryo.io.colors import to_gray
from napari_embryo.io.errors import ImageError, MissingImageError
from napari_embryo.io.finding import Found, list_images, plane_homes, stored_files
from napari_embryo.io.focus import best_focus, embryo_focus, extended_depth_of_field, focus_image, sharpness
from napari_embryo.io.folders import bare_numbers, part_of, plan_files, plan_folder, plan_group, plan_path
from napari_embryo.io.grouping import Group, Grouping, group_files
from napari_embryo.io.header import SUFFIXES, ZARR
from napari_embryo.io.layers import LayerData, from_napari, to_napari, write_layer, written_layer
from napari_embryo.io.names import Plane, image_stem, natural_key
from napari_embryo.io.ome import OmeTiff, OmeTiffStackWriter, read_ome_tiff, write_ome_tiff
from napari_embryo.io.opening import open_image, open_layers, open_plan, read_image
from napari_embryo.io.pictures import palette_indices, upright_picture
from napari_embryo.io.plan import OpenPlan, plan_file
from napari_embryo.io.planned import Focus, Gaps, OpenChoices, PlannedImage
from napari_embryo.io.private import without_folders
from napari_embryo.io.zarr_write import write_layer_to_zarr, write_zarr_labels

__all__ = [
    "SUFFIXES",
    "ZARR",
    "Focus",
    "Found",
    "Gaps",
    "Group",
    "Grouping",
    "ImageError",
    "LayerData",
    "MissingImageError",
    "OmeTiff",
    "OmeTiffStackWriter",
    "OpenChoices",
    "OpenPlan",
    "Plane",
    "PlannedImage",
    "bare_numbers",
    "best_focus",
    "embryo_focus",
    "extended_depth_of_field",
    "focus_image",
    "from_napari",
    "group_files",
    "image_stem",
    "list_images",
    "natural_key",
    "open_image",
    "open_layers",
    "open_plan",
    "palette_indices",
    "part_of",
    "plan_file",
    "plan_files",
    "plan_folder",
    "plan_group",
    "plan_path",
    "plane_homes",
    "read_image",
    "read_ome_tiff",
    "replacing",
    "sharpness",
    "stored_files",
    "to_gray",
    "to_napari",
    "upright_picture",
    "without_folders",
    "write_csv_atomic",
    "write_layer",
    "write_layer_to_zarr",
    "write_ome_tiff",
    "write_png",
    "write_zarr_labels",
    "written_layer",
    "written_layers",
]
