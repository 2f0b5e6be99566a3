"""Pictures: where they come from, how they are decoded, ordered, varied and read in batches."""

from alexnet.data.augment import augment, leaders_of
from alexnet.data.augment_config import AugmentConfig
from alexnet.data.colors import ColorStatistics, measure_colors
from alexnet.data.decode import DecodeError, decode, from_any, square
from alexnet.data.fit import fit
from alexnet.data.loader import MemoryPixels, Pixels, StreamedPixels, load_pixels
from alexnet.data.mix import mix
from alexnet.data.order import draws, epoch_batches, epoch_order
from alexnet.data.pictures import (
    ArrayPictures,
    BadImage,
    FilePictures,
    Pictures,
    Splits,
    write_bad_images,
)
from alexnet.data.sources import data_names, open_data
from alexnet.data.split import stratified_folds, stratified_split

__all__ = [
    "ArrayPictures",
    "AugmentConfig",
    "BadImage",
    "ColorStatistics",
    "DecodeError",
    "FilePictures",
    "MemoryPixels",
    "Pictures",
    "Pixels",
    "Splits",
    "StreamedPixels",
    "augment",
    "data_names",
    "decode",
    "draws",
    "epoch_batches",
    "epoch_order",
    "fit",
    "from_any",
    "leaders_of",
    "load_pixels",
    "measure_colors",
    "mix",
    "open_data",
    "square",
    "stratified_folds",
    "stratified_split",
    "write_bad_images",
]
