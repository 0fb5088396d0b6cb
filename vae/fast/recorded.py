"""A training step recorded once, as a CUDA graph, and repeated: on a GPU a small model's step is mostly launches of kernels.

A recorded step is everything from the drawing of a batch to the moved weights, some eighty kernels, launched as one. Its
kernels read and write where they did when it was recorded, so what changes from step to step has to come in tensors: a
number in Python would stay as it was. Draws go on as they do without (CUDA's generators know of graphs).
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from vae.external import external_sources
from vae.optimizers import Adam, AdamW

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from torch import Tensor

    from vae.run import Run

# Steps of one size before it is recorded: libraries make what they need at their first calls, and an optimizer its state.
_BEFORE = 3


def why_not_recorded(run: Run, device: torch.device) -> str | None:
    """Why the steps of ``run`` are launched kernel by kernel, in words; None: they are recorded."""
    config = run.config
    if device.type != "cuda":
        return f"on a {device.type} there is nothing to gain"
    parts = (getattr(config, field.name) for field in dataclasses.fields(config) if field.name != "data")
    if external := [path for part in parts for path in external_sources(part)]:
        return f"what {external[0]} does at a step is not known"
    if run.adversary is not None:
        return f"objective {config.objective.kind!r} trains two networks in turn"
    if not isinstance(config.optimizer, Adam | AdamW):
        return f"of the optimizers only 'adam' and 'adamw' take a rate from the device, not {config.optimizer.kind!r}"
    if run.examples.training.rows is None:
        return "the data is read from a file, batch by batch"
    return None


class Recorded:
    """``step`` of tensors, recorded after some calls and repeated; calls of other shapes, as an epoch's last batch, go on as before.

    To be called within ``with``, in which all work is on a stream of its own: none can be recorded on the default one.
    """

    def __init__(
        self,
        step: Callable[..., Mapping[str, Tensor]],
        device: torch.device,
        generators: Sequence[torch.Generator] = (),
    ) -> None:
        """``step`` returns tensors of one shape by name. ``generators``: what it draws from beside torch's own."""
        self.step = step
        self.device = device
        self.generators = generators
        self.stream = torch.cuda.Stream(device)
        self.calls = Counter[tuple[torch.Size, ...]]()  # by the shapes that it was called with
        self.recorded: tuple[torch.Size, ...] | None = None
        self.graph = torch.cuda.CUDAGraph()
        self.inputs: tuple[Tensor, ...] = ()
        self.names: tuple[str, ...] = ()
        self.output: Tensor

    @contextmanager
    def stream_of_its_own(self) -> Iterator[None]:
        """After all that was asked of the device before; what is asked of it after comes after the steps."""
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        try:
            with torch.cuda.stream(self.stream):
                yield
        finally:
            torch.cuda.current_stream(self.device).wait_stream(self.stream)

    def __call__(self, *inputs: Tensor) -> Mapping[str, Tensor]:
        """Return what ``step`` returns for ``inputs``, by replaying its capture."""
        shapes = tuple(each.shape for each in inputs)
        if self.recorded is None and self.calls[shapes] >= _BEFORE:
            self._record(inputs)
            self.recorded = shapes
        if shapes != self.recorded:
            self.calls[shapes] += 1
            return self.step(*inputs)
        for mine, given in zip(self.inputs, inputs, strict=True):
            mine.copy_(given)
        self.graph.replay()
        return dict(zip(self.names, self.output.clone().unbind(), strict=True))

    def _record(self, inputs: Sequence[Tensor]) -> None:
        """Nothing is computed here: a recorded step is first taken when it is repeated."""
        self.inputs = tuple(each.clone() for each in inputs)
        for generator in self.generators:
            self.graph.register_generator_state(generator)
        # cuBLAS keeps a workspace that the repetitions use too, and others in this process may free it: torch's own CUDA
        # graphs, of a user's compiled model, do. Taken anew while recording, it belongs to the graph's memory, which stays.
        torch._C._cuda_clearCublasWorkspaces()  # noqa: SLF001 - torch has no public name for it
        # Of this thread alone: others of the process, Ray's, may use the device meanwhile.
        with torch.cuda.graph(self.graph, stream=self.stream, capture_error_mode="thread_local"):
            found = self.step(*self.inputs)
            self.names, self.output = tuple(found), torch.stack(tuple(found.values()))
