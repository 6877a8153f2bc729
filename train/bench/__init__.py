"""The benchmark: what training costs, in time and memory, and how that grows."""
