"""Variational autoencoders as points in one product of parts, in plain PyTorch.

Knows nothing of Ray, Optuna or Weights & Biases.
"""
