"""Submodels for slow clients: which units a model has, which of them to keep, and the smaller module that results."""
