"""Data: named sets in memory, the order of their examples, and the feeds that bring them in."""

from train.data.augment import centre_crop, example_keys, shift, shift_batch, vary_batch
from train.data.catalog import as_file_name, is_dataset, list_datasets, load_dataset
from train.data.dataset import Dataset, Split
from train.data.evaluation import padded_batches
from train.data.feed import Feed, FeedKind, make_feed
from train.data.order import Order

__all__ = [
    "Dataset",
    "Feed",
    "FeedKind",
    "Order",
    "Split",
    "as_file_name",
    "centre_crop",
    "example_keys",
    "is_dataset",
    "list_datasets",
    "load_dataset",
    "make_feed",
    "padded_batches",
    "shift",
    "shift_batch",
    "vary_batch",
]
