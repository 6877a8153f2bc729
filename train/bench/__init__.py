"""What training costs, in time and memory, and how that grows; `parity/bench` uses its core."""
