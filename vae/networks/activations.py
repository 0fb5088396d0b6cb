"""Activation functions by name."""

from __future__ import annotations

from typing import Literal

from torch import nn

Activation = Literal["relu", "tanh", "gelu", "silu", "elu", "leaky_relu", "softplus", "sigmoid", "mish"]

_MODULES: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "elu": nn.ELU,
    "leaky_relu": nn.LeakyReLU,
    "softplus": nn.Softplus,
    "sigmoid": nn.Sigmoid,
    "mish": nn.Mish,
}


def activation(name: Activation) -> nn.Module:
    """Return a new module of the activation ``name``."""
    return _MODULES[name]()
