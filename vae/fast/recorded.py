"""A training step that is captured once as a CUDA graph and then replayed.

On a GPU most of a small model's step is the launching of some eighty kernels. A captured step is one launch, from the
gathering of the batch to the updated weights.

A graph's kernels read and write the addresses that they had at capture. Inside it a Python number keeps its value from
capture time, so all settings are passed as tensors. Random draws go on as without a graph, because torch's CUDA
generators support graphs.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from vae.external import external_sources

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from torch import Tensor

    from vae.run import Run

# Steps of one shape before it is captured: libraries allocate what they need at their first calls, and an optimizer
# creates its state.
_BEFORE = 3
_RATE_FROM_DEVICE = ("adam", "adamw")  # optimizers that read the learning rate from a tensor on the device


def why_not_recorded(run: Run, device: torch.device) -> str | None:
    """Return the reason why the steps of ``run`` can't be captured on ``device``; None if they can."""
    config = run.config
    if device.type != "cuda":
        return f"on a {device.type} there is nothing to gain"
    parts = (getattr(config, field.name) for field in dataclasses.fields(config) if field.name != "data")
    if external := [path for part in parts for path in external_sources(part)]:
        return f"what {external[0]} does at a step is not known"
    if run.adversary is not None:
        return f"objective {config.objective.kind!r} trains two networks in turn"
    if config.optimizer.kind not in _RATE_FROM_DEVICE:
        return f"of the optimizers only 'adam' and 'adamw' take a rate from the device, not {config.optimizer.kind!r}"
    if run.examples.training.rows is None:
        return "the data is read from a file, batch by batch"
    return None


class Recorded:
    """Launcher that captures a step after a few calls, and replays it for all inputs of the same shapes.

    Inputs of other shapes, as an epoch's smaller last batch, still call the step. See ``vae.fast.training.Launcher``.
    """

    def __init__(
        self,
        step: Callable[..., Mapping[str, Tensor]],
        device: torch.device,
        generators: Sequence[torch.Generator] = (),
    ) -> None:
        """Take steps by ``step``, which returns tensors of one shape by name.

        ``generators`` are the random generators that it draws from besides torch's own.
        """
        self.step = step
        self.device = device
        self.generators = generators
        self.own_stream = torch.cuda.Stream(device)
        self.calls = Counter[tuple[torch.Size, ...]]()  # by the shapes of the inputs
        self.recorded: tuple[torch.Size, ...] | None = None  # the shapes that were captured
        self.graph = torch.cuda.CUDAGraph()
        self.inputs: tuple[Tensor, ...] = ()
        self.names: tuple[str, ...] = ()
        self.output: Tensor

    @contextmanager
    def stream(self) -> Iterator[None]:
        """Queue all work of the context on a stream of its own, because the default stream can't be captured.

        The work starts after everything that the current stream has queued before. Work that is queued after the context
        waits for it.
        """
        self.own_stream.wait_stream(torch.cuda.current_stream(self.device))
        try:
            with torch.cuda.stream(self.own_stream):
                yield
        finally:
            torch.cuda.current_stream(self.device).wait_stream(self.own_stream)

    def settings(self, schedule: Sequence[Sequence[float]]) -> Sequence[Tensor]:
        """Return the rows of ``schedule`` on the device. They are copied once an epoch, because a copy makes the GPU wait."""
        return torch.tensor(schedule, device=self.device).unbind()

    def take(self, *inputs: Tensor) -> Mapping[str, Tensor]:
        """Return what the step returns for ``inputs``, by replaying its capture. Call it inside :meth:`stream`."""
        shapes = tuple(each.shape for each in inputs)
        if self.recorded is None and self.calls[shapes] >= _BEFORE:
            self._capture(inputs)
            self.recorded = shapes
        if shapes != self.recorded:
            self.calls[shapes] += 1
            return self.step(*inputs)
        for mine, given in zip(self.inputs, inputs, strict=True):
            mine.copy_(given)
        self.graph.replay()
        return dict(zip(self.names, self.output.clone().unbind(), strict=True))

    def _capture(self, inputs: Sequence[Tensor]) -> None:
        """Capture the step. Nothing is computed here: the first result comes from the first replay."""
        self.inputs = tuple(each.clone() for each in inputs)
        for generator in self.generators:
            self.graph.register_generator_state(generator)
        # The replays use cuBLAS's workspace, and other code of the process may free it: the CUDA graphs of a user's
        # compiled model do. A workspace that is allocated during the capture belongs to the graph's memory, which stays.
        torch._C._cuda_clearCublasWorkspaces()  # noqa: SLF001 - torch has no public name for it
        # Capture this thread only: other threads of the process, such as Ray's, may use the device meanwhile.
        with torch.cuda.graph(self.graph, stream=self.own_stream, capture_error_mode="thread_local"):
            found = self.step(*self.inputs)
            self.names, self.output = tuple(found), torch.stack(tuple(found.values()))
