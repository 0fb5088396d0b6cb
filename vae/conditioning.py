"""The condition of a model: nothing, the label, or part of the image.

Each conditioning is a config with ``build(shape, num_classes)``, which returns a module. The module has the lengths of
the condition for encoder and decoder, makes the condition of a batch, and knows the dimensions of x that are scored.
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
    """No condition, and the base of all other conditionings."""

    seen: Tensor | None  # indices of the dimensions that the condition gives; None if it gives none
    scored: Tensor | None  # indices of the dimensions that are scored; None if all are

    def __init__(self, *, encoder_size: int = 0, decoder_size: int = 0, everywhere: bool = False) -> None:
        super().__init__()
        self.encoder_size = encoder_size
        self.decoder_size = decoder_size
        self.everywhere = everywhere
        self.register_buffer("seen", None, persistent=False)
        self.register_buffer("scored", None, persistent=False)

    def condition(self, x: Tensor, labels: Tensor) -> Tensor | None:
        """Return the condition [B, decoder_size], or None, of x [B, D] and labels [B]."""
        del x, labels
        return None


@part
class Unconditional:
    """The model sees x alone and bounds log p(x)."""

    kind: Literal["none"] = "none"
    given: ClassVar[str | None] = None

    def build(self, shape: tuple[int, int, int], num_classes: int) -> Conditioning:
        """Return a module without a condition."""
        del shape, num_classes
        return Conditioning()


@part
class OnLabel:
    """The one-hot label enters encoder and decoder, and the model bounds log p(x|y) (Sohn et al. 2015).

    With ``at: input`` it is appended to x and to z. With ``every_layer`` it is also appended to each hidden layer.
    """

    kind: Literal["label"] = "label"
    at: Literal["input", "every_layer"] = "input"
    given: ClassVar[str | None] = "label"

    def build(self, shape: tuple[int, int, int], num_classes: int) -> Conditioning:
        """Return a module for one-hot labels of ``num_classes``."""
        del shape
        if num_classes < 1:
            raise ConfigError("conditioning.kind 'label' needs data with labels, and this set has none; use 'none'")
        return LabelConditioning(num_classes, everywhere=self.at == "every_layer")


class LabelConditioning(Conditioning):
    """See :class:`OnLabel`."""

    def __init__(self, num_classes: int, *, everywhere: bool) -> None:
        super().__init__(encoder_size=num_classes, decoder_size=num_classes, everywhere=everywhere)

    def condition(self, x: Tensor, labels: Tensor) -> Tensor:
        """Return the one-hot labels, [B, K]."""
        del x
        # Torch's ``one_hot`` reads the labels back to check them, and a GPU would wait.
        return torch.eye(self.decoder_size, device=labels.device).index_select(0, labels)


@part
class OnQuadrants:
    """Part of the image is given: the model bounds log p(unseen | seen) (Sohn et al. 2015, section 5.2).

    The decoder gets the pixels of the ``observed`` quadrants with z. The encoder gets the whole image. Only the unseen
    pixels are scored.
    """

    kind: Literal["quadrants"] = "quadrants"
    observed: Annotated[tuple[Quadrant, ...], Field(min_length=1, max_length=3)] = ("bottom_left",)

    def __post_init__(self) -> None:
        """Refuse a quadrant that is named twice."""
        if len(set(self.observed)) < len(self.observed):
            raise ValueError(f"observed must name each quadrant at most once, got {list(self.observed)}")

    @property
    def given(self) -> str:
        """Return the name of the condition in the measure."""
        return "+".join(sorted(self.observed))

    def build(self, shape: tuple[int, int, int], num_classes: int) -> Conditioning:
        """Return a module that divides the pixels of images of ``shape`` into seen and unseen ones."""
        del num_classes
        if min(shape[1:]) < 2:  # noqa: PLR2004 - two halves
            raise ConfigError(
                f"conditioning.kind 'quadrants' needs images of at least 2×2, got {shape[1]}×{shape[2]}; use 'none'"
            )
        return QuadrantConditioning(seen_pixels(shape, self.observed))


class QuadrantConditioning(Conditioning):
    """See :class:`OnQuadrants`. The argument ``seen`` [C, H, W] is True for the pixels that the decoder gets."""

    seen: Tensor
    scored: Tensor

    def __init__(self, seen: Tensor) -> None:
        index = seen.flatten().nonzero().flatten()
        super().__init__(decoder_size=len(index))
        self.register_buffer("seen", index, persistent=False)
        self.register_buffer("scored", (~seen).flatten().nonzero().flatten(), persistent=False)

    def condition(self, x: Tensor, labels: Tensor) -> Tensor:
        """Return the seen pixels, [B, number of seen pixels]."""
        del labels
        return x.index_select(1, self.seen)


def seen_pixels(shape: tuple[int, int, int], observed: Sequence[Quadrant]) -> Tensor:
    """Return a mask [C, H, W] of the ``observed`` quadrants. An odd middle row or column belongs to bottom or right."""
    height, width = shape[1:]
    # On the CPU for any default device, because a model is also built on "meta" to check its shapes.
    seen = torch.zeros(shape, dtype=torch.bool, device="cpu")
    for name in observed:
        vertical, horizontal = name.split("_")
        rows = slice(0, height // 2) if vertical == "top" else slice(height // 2, height)
        columns = slice(0, width // 2) if horizontal == "left" else slice(width // 2, width)
        seen[:, rows, columns] = True
    return seen


ConditioningConfig = Annotated[Unconditional | OnLabel | OnQuadrants, Field(discriminator="kind")]
