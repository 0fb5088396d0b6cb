"""From train() to the arithmetic of a step there are few functions, and docs/ARCHITECTURE.md lists them."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

import vae
from tests.support.small import few_digits, small_config
from vae.data import Digits
from vae.likelihoods import Bernoulli, Binomial
from vae.train import train

PACKAGE = Path(vae.__file__).parent
ARCHITECTURE = PACKAGE.parent / "docs" / "ARCHITECTURE.md"


def own_stack(frame):
    """Return the functions of ``vae`` on the stack of ``frame``, the outermost first."""
    stack = []
    while frame is not None:
        if PACKAGE in Path(frame.f_code.co_filename).parents:
            stack.append(frame.f_code.co_qualname)
        frame = frame.f_back
    return stack[::-1]


def walked(config, name):
    """Return the stack at the first call of the function ``name`` while one epoch of ``config`` is trained."""
    found = []

    def look(frame, event, _):
        if event == "call" and not found and own_stack(frame)[-1:] == [name]:
            found.append(own_stack(frame))

    epochs = train(config, few_digits())
    before = sys.getprofile()
    sys.setprofile(look)
    try:
        next(epochs)
    finally:
        sys.setprofile(before)
    return found[0]


@pytest.mark.parametrize("name", ["VAE.terms", "Elbo.loss"])
def test_train_until_the_bound_passes_one_function(name):
    """Only the step stands between train() and the terms of the ELBO, and between train() and the objective's loss."""
    assert walked(small_config(), name) == ["train", "TrainingStep.__call__", name]


@pytest.mark.parametrize(
    ("config", "likelihood"),
    [
        (small_config(likelihood=Binomial()), "BinomialLikelihood.nll"),
        (small_config(likelihood=Bernoulli(), data=Digits(binarisation="dynamic")), "BernoulliLikelihood.nll"),
    ],
    ids=["binomial", "bernoulli"],
)
def test_train_until_a_pixels_likelihood_passes_the_listed_functions(config, likelihood):
    """The formula of log p(x|z) is reached through the functions that docs/ARCHITECTURE.md lists, in that order."""
    section = ARCHITECTURE.read_text(encoding="utf-8").partition("### From train() to a pixel's likelihood")[2]
    listed = re.findall(r"^\| `([\w.]+)` \|", section.partition("\n\n#")[0].partition("\n## ")[0], re.MULTILINE)
    assert listed[0] == "train"
    assert walked(config, likelihood) == [*listed[:-1], likelihood]
