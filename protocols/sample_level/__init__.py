"""Differential privacy of single examples on their client: training, gradients of single examples, and the cost."""
