"""TrainState: everything that a run needs to continue as if it had not stopped, in safetensors and JSON.

A state between two epochs holds weights, optimizer, average (EMA) and two counters. It needs no generator state and no
position in the data, because the order and noise of an epoch are functions of (seed, epoch) (``vae.seeds``), and
schedules are functions of the step. A state in the middle of an epoch has more (``vae.pause``).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from vae.durable import WEIGHTS, hash_file, read_file, sync_directory, write_file

if TYPE_CHECKING:
    from pathlib import Path

    from vae.model import VAE

STATE_FILE = "state.safetensors"
INFO_FILE = "state.json"
FORMAT = 1
_RUN = "run"  # the only key of the metadata of the tensors' file


class StateError(ValueError):
    """A saved state is torn, altered or of another run. The message names the file."""


@dataclass(frozen=True)
class TrainState:
    """A run after ``epoch`` whole epochs and ``step`` optimizer steps. A paused run has steps of the next epoch, too.

    ``sizes`` are the channels, height, width, levels and classes of the data, from which the weights' shapes follow.

    ``tensors`` are ``model/<name>``, ``optimizer/<parameter>/<key>``, and ``ema/<name>`` if an average is kept. With an
    adversary there are also ``adversary/<name>`` and ``adversary_optimizer/<parameter>/<key>``. They are the live tensors,
    not copies, so save or copy them before the next epoch begins.
    """

    config_hash: str
    epoch: int
    step: int
    sizes: dict[str, int]
    tensors: dict[str, Tensor]

    def weights(self) -> dict[str, Tensor]:
        """Return the weights that are evaluated and kept, by name: the averages if there are any, else the raw weights."""
        averaged = {name.removeprefix("ema/"): t for name, t in self.tensors.items() if name.startswith("ema/")}
        raw = {name.removeprefix("model/"): t for name, t in self.tensors.items() if name.startswith("model/")}
        return raw | averaged

    def copied(self) -> TrainState:
        """Return the state with copies of its tensors, which later steps do not change."""
        return dataclasses.replace(self, tensors={name: t.detach().clone() for name, t in self.tensors.items()})

    def save(self, folder: Path) -> str:
        """Write ``folder`` completely or not at all, and return the sha256 of its ``state.safetensors``.

        An existing ``folder`` is replaced.
        """
        temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        # Everything is in one file, so that one hash covers all of it. The metadata has one key, because several would be
        # written in any order, and equal states would have different hashes.
        run = {"config_hash": self.config_hash, "epoch": self.epoch, "step": self.step, "sizes": self.sizes}
        tensors = {name: t.detach().contiguous().cpu() for name, t in self.tensors.items()}
        content = safetensors.torch.save(tensors, metadata={_RUN: json.dumps(run, sort_keys=True)})
        digest = hashlib.sha256(content).hexdigest()
        write_file(temporary / STATE_FILE, content)
        write_file(temporary / INFO_FILE, json.dumps({"format": FORMAT, "sha256": digest}).encode())
        sync_directory(temporary)
        if folder.exists():
            shutil.rmtree(folder)
        temporary.rename(folder)
        sync_directory(folder.parent)
        return digest

    @staticmethod
    def load(folder: Path) -> TrainState:
        """Read what :meth:`save` wrote.

        Raises:
            StateError: A file is missing, torn or altered. The message names it.

        """
        try:
            info = json.loads(read_file(folder / INFO_FILE))
            written_as, digest = info["format"], info["sha256"]
            # The file is hashed piece by piece before it is read, so that a huge file does not fill the memory.
            content = b"" if hash_file(folder / STATE_FILE) != digest else read_file(folder / STATE_FILE, WEIGHTS)
        except (KeyError, TypeError):
            raise StateError(f"{folder / INFO_FILE} was altered: it lacks format or sha256") from None
        except OSError as error:
            raise StateError(f"{error.filename} is not readable: {error.strerror}") from None
        except (ValueError, RecursionError) as error:
            raise StateError(f"{folder / INFO_FILE} is torn or altered: {error}") from None
        if written_as != FORMAT:
            raise StateError(f"{folder / INFO_FILE} has format {str(written_as)[:20]!r}, this version reads {FORMAT}")
        if hashlib.sha256(content).hexdigest() != digest:
            raise StateError(f"{folder / STATE_FILE} was altered: its sha256 is not the one in {INFO_FILE}")
        try:
            tensors = safetensors.torch.load(content)
            header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
            return TrainState(**json.loads(header["__metadata__"][_RUN]), tensors=tensors)
        except (safetensors.SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
            line = " ".join(str(error).split())[:200]
            raise StateError(f"{folder / STATE_FILE} is no saved state: {line}") from None


def capture(
    *,
    config_hash: str,
    epoch: int,
    step: int,
    model: VAE,
    optimizer: torch.optim.Optimizer,
    ema: list[Tensor] | None,
    adversary: tuple[nn.Module, torch.optim.Optimizer] | None = None,
) -> TrainState:
    """Return the state of a run. Buffers that the configuration determines are left out, as in ``state_dict``."""
    names = [name for name, _ in model.named_parameters()]
    tensors = _module_tensors("model", model) | _optimizer_tensors("optimizer", model, optimizer)
    if ema is not None:
        tensors |= {f"ema/{name}": tensor for name, tensor in zip(names, ema, strict=True)}
    if adversary is not None:
        tensors |= _module_tensors("adversary", adversary[0])
        tensors |= _optimizer_tensors("adversary_optimizer", *adversary)
    return TrainState(config_hash=config_hash, epoch=epoch, step=step, sizes=model.sizes(), tensors=tensors)


def restore(
    state: TrainState,
    model: VAE,
    optimizer: torch.optim.Optimizer,
    ema: list[Tensor] | None,
    adversary: tuple[nn.Module, torch.optim.Optimizer] | None = None,
) -> None:
    """Copy ``state`` into a newly built run of the same configuration."""
    _restore_module(state, "model", model)
    _restore_optimizer(state, "optimizer", model, optimizer)
    if ema is not None:
        for (name, _), average in zip(model.named_parameters(), ema, strict=True):
            average.copy_(state.tensors[f"ema/{name}"])
    if adversary is not None:
        _restore_module(state, "adversary", adversary[0])
        _restore_optimizer(state, "adversary_optimizer", *adversary)


def _module_tensors(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    return {f"{prefix}/{name}": tensor for name, tensor in module.state_dict().items()}


def _optimizer_tensors(prefix: str, module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    names = [name for name, _ in module.named_parameters()]
    return {
        f"{prefix}/{names[index]}/{key}": torch.as_tensor(value)
        for index, values in optimizer.state_dict()["state"].items()
        for key, value in values.items()
        if value is not None
    }


def _restore_module(state: TrainState, prefix: str, module: nn.Module) -> None:
    start = f"{prefix}/"
    module.load_state_dict({name.removeprefix(start): t for name, t in state.tensors.items() if name.startswith(start)})


def _restore_optimizer(state: TrainState, prefix: str, module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    names = [name for name, _ in module.named_parameters()]
    start = f"{prefix}/"
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in state.tensors.items():
        if name.startswith(start):
            parameter, _, key = name.removeprefix(start).rpartition("/")
            # A copy, because the optimizer keeps the tensor and writes into it, and ``state`` may be resumed again.
            moments.setdefault(names.index(parameter), {})[key] = tensor.clone()
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
