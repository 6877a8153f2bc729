"""Data: named sets, the order of their examples, and the feeds that bring them in.

`catalog` has the sets by name; `sources/` reads them, `made/` makes them, `feeds/` brings batches.
"""

from train.data.catalog import (
    as_file_name,
    is_dataset,
    labels_per_image,
    list_datasets,
    load_dataset,
)
from train.data.dataset import Batch, Dataset, Examples, Split, classes_of, stored
from train.data.feeds.feed import Feed, FeedKind, is_resident, make_feed
from train.data.feeds.order import Order, padded_batches
from train.data.geometry import centre_crop, moved, warp
from train.data.on_disk import OnDisk
from train.data.sources import npz
from train.data.validation import fold, hold_out

__all__ = [
    "Batch",
    "Dataset",
    "Examples",
    "Feed",
    "FeedKind",
    "OnDisk",
    "Order",
    "Split",
    "as_file_name",
    "centre_crop",
    "classes_of",
    "fold",
    "hold_out",
    "is_dataset",
    "is_resident",
    "labels_per_image",
    "list_datasets",
    "load_dataset",
    "make_feed",
    "moved",
    "npz",
    "padded_batches",
    "stored",
    "warp",
]
