"""CLIP under secure aggregation as a Flower app."""
