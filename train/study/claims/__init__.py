"""Claims: what papers say of capsule networks, each in a file, and how it is tried."""
