"""The condition of a model besides z: nothing, the label, or part of the image.

Each conditioning is a config with ``build(shape, num_classes)``, a module that says how long the condition is for
encoder and decoder, makes it from a batch, and which dimensions of x are left to be scored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from vae.config import ConfigError, part

if TYPE_CHECKING:
    from collections.abc import Sequence

Quadrant = Literal["top_left", "top_right", "bottom_left", "bottom_right"]


class Conditioning(nn.Module):
    """No condition; see the configs for the others."""

    seen: Tensor | None  # indices of the dimensions that the decoder is told; None: none
    scored: Tensor | None  # indices of the dimensions that are scored; None: all

    def __init__(self, *, encoder_size: int = 0, decoder_size: int = 0, everywhere: bool = False) -> None:
        super().__init__()
        self.encoder_size = encoder_size
        self.decoder_size = decoder_size
        self.everywhere = everywhere
        self.register_buffer("seen", None, persistent=False)
        self.register_buffer("scored", None, persistent=False)

    def condition(self, x: Tensor, labels: Tensor) -> Tensor | None:
        """[B, D] and [B] -> [B, decoder_size], or None."""
        del x, labels
        return None


@part
class Unconditional:
    """The model sees x alone and bounds log p(x)."""

    kind: Literal["none"] = "none"
    given: ClassVar[str | None] = None

    def build(self, shape: tuple[int, int, int], num_classes: int) -> Conditioning:
        """Nothing to condition on."""
        del shape, num_classes
        return Conditioning()


@part
class OnLabel:
    """The label enters encoder and decoder, one-hot; the model bounds log p(x|y) (Sohn et al. 2015).

    ``at: input`` feeds it beside x and beside z; ``every_layer`` also to each hidden layer.
    """

    kind: Literal["label"] = "label"
    at: Literal["input", "every_layer"] = "input"
    given: ClassVar[str | None] = "label"

    def build(self, shape: tuple[int, int, int], num_classes: int) -> Conditioning:
        """One-hot labels of ``num_classes``."""
        del shape
        if num_classes < 1:
            raise ConfigError("conditioning.kind 'label' needs data with labels, and this set has none; use 'none'")
        return LabelConditioning(num_classes, everywhere=self.at == "every_layer")


class LabelConditioning(Conditioning):
    """See :class:`OnLabel`."""

    def __init__(self, num_classes: int, *, everywhere: bool) -> None:
        super().__init__(encoder_size=num_classes, decoder_size=num_classes, everywhere=everywhere)

    def condition(self, x: Tensor, labels: Tensor) -> Tensor:
        """[B, K] one-hot."""
        del x
        # ``one_hot`` reads its labels back to check them.
        return torch.eye(self.decoder_size, device=labels.device).index_select(0, labels)


@part
class OnQuadrants:
    """Part of the image is seen: p(unseen | seen) is bounded, and only unseen pixels are scored (Sohn et al. 2015, 5.2).

    The decoder is given the ``observed`` quadrants' pixels beside z. The encoder is given the whole image.
    """

    kind: Literal["quadrants"] = "quadrants"
    observed: Annotated[tuple[Quadrant, ...], Field(min_length=1, max_length=3)] = ("bottom_left",)

    def __post_init__(self) -> None:
        """Each quadrant at most once."""
        if len(set(self.observed)) < len(self.observed):
            raise ValueError(f"observed must name each quadrant at most once, got {list(self.observed)}")

    @property
    def given(self) -> str:
        """The condition as the measure names it."""
        return "+".join(sorted(self.observed))

    def build(self, shape: tuple[int, int, int], num_classes: int) -> Conditioning:
        """The pixels of images of ``shape``, divided into seen and unseen."""
        del num_classes
        if min(shape[1:]) < 2:  # noqa: PLR2004 - two halves
            raise ConfigError(
                f"conditioning.kind 'quadrants' needs images of at least 2×2, got {shape[1]}×{shape[2]}; use 'none'"
            )
        return QuadrantConditioning(seen_pixels(shape, self.observed))


class QuadrantConditioning(Conditioning):
    """See :class:`OnQuadrants`. ``seen``: [C, H, W], True where the decoder is told the pixel."""

    seen: Tensor
    scored: Tensor

    def __init__(self, seen: Tensor) -> None:
        index = seen.flatten().nonzero().flatten()
        super().__init__(decoder_size=len(index))
        self.register_buffer("seen", index, persistent=False)
        self.register_buffer("scored", (~seen).flatten().nonzero().flatten(), persistent=False)

    def condition(self, x: Tensor, labels: Tensor) -> Tensor:
        """The seen pixels, [B, number seen]."""
        del labels
        return x.index_select(1, self.seen)


def seen_pixels(shape: tuple[int, int, int], observed: Sequence[Quadrant]) -> Tensor:
    """[C, H, W], True in the ``observed`` quadrants. An odd middle row or column belongs to bottom or right."""
    height, width = shape[1:]
    # On the CPU whatever the default device is: a model is also built on "meta" to see whether it fits.
    seen = torch.zeros(shape, dtype=torch.bool, device="cpu")
    for name in observed:
        vertical, horizontal = name.split("_")
        rows = slice(0, height // 2) if vertical == "top" else slice(height // 2, height)
        columns = slice(0, width // 2) if horizontal == "left" else slice(width // 2, width)
        seen[:, rows, columns] = True
    return seen


ConditioningConfig = Annotated[Unconditional | OnLabel | OnQuadrants, Field(discriminator="kind")]
