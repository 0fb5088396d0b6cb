"""Memory on a real GPU: what a trial takes, that it keeps to its share, and that a worker trains on after one that did not.

Skipped where there is none, as in CI; docs/performance.md says on which card they were seen to pass.
"""

from __future__ import annotations

import pytest
import torch

from research.driver.failures import classify
from research.worker.gpu_memory import limit_memory, measure, share_of, trials_per_gpu
from vae.data import Digits, load_training
from vae.networks import Mlp
from vae.serialization import to_dict
from vae.train import train
from vae.train_config import TrainConfig

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def config(width):
    """A model of about 2·width² weights."""
    return TrainConfig(data=Digits(), network=Mlp(hidden=(width, width)), latent_size=4, epochs=2)


def test_what_a_trial_takes_is_measured_and_held_to_its_share():
    """A small one fits many times; in that share it trains, a large one runs out, and after it a small one trains again."""
    small, large = (measure(to_dict(config(width)), None, 1, "val/elbo") for width in (100, 6000))
    assert 0 < small.peak < large.peak < large.total
    fit = trials_per_gpu(small)
    assert fit > trials_per_gpu(large) > 1
    torch.cuda.empty_cache()
    limit_memory("cuda", share_of(fit))
    try:
        data = load_training(Digits(), None)
        for _ in range(2):
            assert len(list(train(config(100), data, device="cuda"))) == 2
            with pytest.raises(torch.OutOfMemoryError) as raised:
                list(train(config(6000), data, device="cuda"))
            assert classify(raised.value)[0] == "out_of_memory"
            del raised
            torch.cuda.empty_cache()
    finally:
        limit_memory("cuda", 1.0)
