"""`python -m train compare`: networks and routings beside one another, on the same data."""
