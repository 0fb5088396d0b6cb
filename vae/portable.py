"""A trained model as a folder that works anywhere: ``config.json`` and ``model.safetensors``, without pickle or data."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING

import safetensors
import safetensors.torch
import torch

from vae.config import ConfigError
from vae.durable import WEIGHTS, open_file, read_file
from vae.model import VAE
from vae.serialization import from_json
from vae.system.manifest import DamagedFolder, check_manifest, has_manifest

if TYPE_CHECKING:
    from pathlib import Path

    from vae.state import TrainState
    from vae.train_config import TrainConfig

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
# Errors of a damaged or foreign model folder. They include torch's errors for impossible sizes in a config.
_UNREADABLE = (
    *(OSError, safetensors.SafetensorError, RuntimeError, KeyError, TypeError, ValueError),
    *(ArithmeticError, RecursionError, MemoryError),
)
_SIZES = "sizes"  # the only key of the metadata


def in_model_folder(file: Path) -> bool:
    """Return True if ``file`` is the config of a model folder. Such a config is read as a recorded one."""
    return file.name == CONFIG_FILE and (file.parent / WEIGHTS_FILE).is_file()


def weights_file(state: TrainState) -> bytes:
    """Return the content of ``model.safetensors``: the weights that were evaluated, and the sizes of the data."""
    tensors = {name: tensor.detach().contiguous().cpu() for name, tensor in state.weights().items()}
    # One key, because several would be written in any order, and equal models would have different hashes.
    return safetensors.torch.save(tensors, metadata={_SIZES: json.dumps(state.sizes, sort_keys=True)})


def load_model(folder: Path) -> tuple[TrainConfig, VAE]:
    """Return the config and the model of a model folder. The model is in evaluation mode on the CPU.

    If there is a ``manifest.json``, the folder is compared with it before anything is used.

    Raises:
        ConfigError: A file is missing or damaged, or the weights do not fit the config.

    """
    try:
        if has_manifest(folder):
            check_manifest(folder)
        config = from_json(read_file(folder / CONFIG_FILE).decode(), recorded=True)
        open_file(folder / WEIGHTS_FILE, WEIGHTS).close()  # safetensors would wait for a pipe
        with safetensors.safe_open(folder / WEIGHTS_FILE, framework="pt") as file:
            sizes = json.loads((file.metadata() or {})[_SIZES])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - the file is not a dict
        shape = sizes["channels"], sizes["height"], sizes["width"]
        build = partial(VAE, config, shape=shape, levels=sizes["levels"], num_classes=sizes["num_classes"])
        with torch.device("meta"):  # A config with larger shapes than the file's must not allocate memory.
            shapes = {name: tensor.shape for name, tensor in build().state_dict().items()}
        if shapes != {name: tensor.shape for name, tensor in tensors.items()}:
            raise ConfigError("its weights are not those of its config")
        model = build()
        model.load_state_dict(tensors)
    except DamagedFolder as error:
        raise ConfigError(str(error)) from None
    except _UNREADABLE as error:
        line = " ".join(str(error).split())[:300]
        raise ConfigError(f"{folder} is not a readable model folder: {line}") from None
    return config, model.eval()
