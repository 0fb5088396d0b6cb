"""A trained model as a folder that goes anywhere: ``config.json`` and ``model.safetensors``. No pickle, no data needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import safetensors
import safetensors.torch

from vae.config import ConfigError
from vae.model import VAE
from vae.serialization import from_json

if TYPE_CHECKING:
    from pathlib import Path

    from vae.state import TrainState
    from vae.train_config import TrainConfig

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"


def weights_file(state: TrainState) -> bytes:
    """The content of ``model.safetensors``: the weights that were evaluated, and the sizes that they are for."""
    tensors = {name: tensor.detach().contiguous().cpu() for name, tensor in state.weights().items()}
    return safetensors.torch.save(tensors, metadata={name: str(size) for name, size in state.sizes.items()})


def load_model(folder: Path) -> tuple[TrainConfig, VAE]:
    """The config and the model, in evaluation mode on the CPU, of a model folder.

    Raises:
        ConfigError: a file is missing, is not what it should be, or the weights don't fit the config.

    """
    try:
        config = from_json((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        with safetensors.safe_open(folder / WEIGHTS_FILE, framework="pt") as file:
            sizes = {name: int(text) for name, text in (file.metadata() or {}).items()}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
        model = VAE(
            config,
            shape=(sizes["channels"], sizes["height"], sizes["width"]),
            levels=sizes["levels"],
            num_classes=sizes["num_classes"],
        )
        model.load_state_dict(tensors)
    except (OSError, safetensors.SafetensorError, RuntimeError, KeyError, UnicodeDecodeError) as error:
        line = " ".join(str(error).split())[:300]
        raise ConfigError(f"{folder} is not a readable model folder: {line}") from None
    return config, model.eval()
