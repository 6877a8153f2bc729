"""Comparison of networks and routings on the same data: what is compared, trained, measured."""
