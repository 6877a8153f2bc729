"""Data: named sets, the order of their examples, and the feeds that bring them in."""

from train.data.affine import warp
from train.data.augment import example_keys, shift, shift_batch, shift_examples
from train.data.catalog import labels_per_image, list_datasets, load_dataset
from train.data.dataset import Batch, Dataset, Examples, Split, stored
from train.data.evaluation import padded_batches
from train.data.feed import Feed, FeedKind, make_feed
from train.data.order import Order

__all__ = [
    "Batch",
    "Dataset",
    "Examples",
    "Feed",
    "FeedKind",
    "Order",
    "Split",
    "example_keys",
    "labels_per_image",
    "list_datasets",
    "load_dataset",
    "make_feed",
    "padded_batches",
    "shift",
    "shift_batch",
    "shift_examples",
    "stored",
    "warp",
]
