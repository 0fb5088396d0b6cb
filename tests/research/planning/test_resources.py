"""What a trial may ask for, what fits beside one another on a GPU, and what is refused. No GPU: CUDA is stood in for."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from research.errors import UserError
from research.ledger.settings import Resources
from research.on_ray import capacity as cluster
from research.planning import resources
from research.planning.footprint import footprint
from research.planning.resources import automatic_share, gpu_share, resources_of, slots
from research.search.draws import draw_many
from research.search.spaces import load_space
from research.worker import gpu_memory
from research.worker.gpu_memory import CONTEXT_BYTES, SLACK, Measured, memory_fraction, share_of, trials_per_gpu
from vae.data import Digits, load_training
from vae.networks import Mlp
from vae.serialization import from_dict, to_dict
from vae.train_config import TrainConfig

GIB = 2**30


@given(st.integers(4 * GIB, 200 * GIB), st.integers(GIB // 16, 100 * GIB))
def test_trials_that_share_a_gpu_fit_on_it(total, peak):
    """As many as are put on it, each at its limit and with its context, take no more than there is; one more would."""
    try:
        fit = trials_per_gpu(Measured(total=total, peak=peak))
    except UserError:
        assert peak * SLACK + CONTEXT_BYTES > total
        return
    needed = peak * SLACK + CONTEXT_BYTES
    assert fit * needed <= total < (fit + 1) * needed
    if fit <= 1000:
        share = share_of(fit)
        limit = memory_fraction(share, total) * total
        assert fit * share <= 1
        assert fit * (limit + CONTEXT_BYTES) <= total * 1.000001
        # Ray's grain may cost a ten-thousandth of the GPU.
        assert limit >= peak * min(SLACK, 1 + 1e-9) - total / 10_000


@given(st.floats(1e-4, 1, exclude_max=True), st.integers(GIB, 200 * GIB))
def test_neighbours_never_exceed_the_gpu(share, total):
    """However small a share is, the limits of all that fit beside one another stay below the whole."""
    assert 0 < memory_fraction(share, total) < share
    assert slots(gpus=1, share=share) * memory_fraction(share, total) <= 1


def test_a_share_lies_on_one_gpu():
    """0.4 of a GPU: two trials on each, not five on two."""
    assert slots(gpus=2, share=0.4) == 4
    assert slots(gpus=3, share=share_of(3)) == 9
    assert slots(gpus=2, share=1.0) == 2


@pytest.mark.parametrize(("text", "share"), [("auto", None), ("0", 0.0), ("1", 1.0), ("0.25", 0.25)])
def test_gpus_per_trial_is_a_number_or_auto(text, share):
    """What the option takes."""
    assert gpu_share(text) == share


@pytest.mark.parametrize("text", ["2", "1.5", "-1", "nan", "inf", "half", "", "0.00001"])
def test_other_gpus_per_trial_are_refused(text):
    """One line with the value."""
    with pytest.raises(UserError, match="--gpus-per-trial"):
        gpu_share(text)


@pytest.mark.parametrize("cpus", [0.0, -1.0, float("nan")])
@pytest.mark.parametrize("address", [None, "10.0.0.5:6379"])
def test_no_cpus_are_refused(cpus, address):
    """Nothing could ever be scheduled on 0 CPUs fairly: refused here and for a cluster."""
    with pytest.raises(UserError, match="--cpus-per-trial must be > 0"):
        resources_of(concurrent=1, cpus_per_trial=cpus, gpus_per_trial=0.0, address=address)


def test_a_gpu_where_there_is_none_is_refused(monkeypatch):
    """A share of a GPU on a machine without one: refused with what to do."""
    monkeypatch.setattr(resources, "local_gpus", lambda: 0)
    with pytest.raises(UserError, match="--gpus-per-trial needs a GPU, and torch sees none"):
        resources_of(concurrent=1, cpus_per_trial=None, gpus_per_trial=0.5, address=None)


def test_slots_follow_from_cores_and_gpus(monkeypatch):
    """As many as fit: of eight cores and two GPUs with 0.4 each, four."""
    monkeypatch.setattr(resources, "available_cpus", lambda: 8)
    monkeypatch.setattr(resources, "local_gpus", lambda: 2)
    found = resources_of(concurrent=None, cpus_per_trial=None, gpus_per_trial=0.4, address=None)
    assert (found.concurrent, found.cpus_per_trial, found.threads) == (4, 2.0, 2)


def test_the_largest_draw_is_measured_and_decides(monkeypatch):
    """``auto`` measures the config with the most memory and divides the GPU by it. The measurement is stood in for."""
    asked = []

    def stand_in(config, data_dir, replicates, metric):
        asked.append((config, data_dir, replicates, metric))
        return Measured(total=24 * GIB, peak=5 * GIB)

    monkeypatch.setattr(resources, "DRAWS", 12)  # each is traced: two hundred take a while
    space = load_space("quickstart")
    data = load_training(Digits(), None)
    options = {
        "gpus": 1, "epochs": None, "seed": 0, "data_set": None, "data_dir": None, "replicates": 2, "metric": "val/elbo",
        "measure_one": stand_in,
    }  # fmt: skip
    share, why = automatic_share(space, data, at_once=8, **options)
    assert share == share_of(3)
    assert "3 trials on each GPU" in why
    assert asked[0][1:] == (None, 2, "val/elbo")
    drawn = [one.config for one in draw_many(space, epochs=None, seed=0, count=12) if one.config]
    most = footprint(from_dict(asked[0][0]), data).bytes
    assert most >= max(footprint(config, data).bytes for config in drawn)
    # Fewer at a time than fit: each gets more.
    assert automatic_share(space, data, at_once=2, **options)[0] == 0.5


def test_a_config_larger_than_the_gpu_is_refused(monkeypatch):
    """The measurement runs out of memory, or leaves no room: one line, not a trace. It is stood in for."""
    monkeypatch.setattr(resources, "DRAWS", 3)

    def too_large(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 96.00 GiB.")

    options = {
        "gpus": 1, "at_once": 4, "epochs": None, "seed": 0, "data_set": None, "data_dir": None, "replicates": 1,
        "metric": "val/elbo",
    }  # fmt: skip
    data = load_training(Digits(), None)
    for stand_in in (too_large, lambda *_: Measured(total=24 * GIB, peak=23 * GIB)):
        with pytest.raises(UserError, match="--gpus-per-trial auto: the largest"):
            automatic_share(load_space("quickstart"), data, measure_one=stand_in, **options)


def test_a_worker_keeps_within_its_share(monkeypatch):
    """What is asked of CUDA at a trial's start; CUDA itself is stood in for, as no test machine has a GPU."""
    total, limits = 24 * GIB, []
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: type("", (), {"total_memory": total}))
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", limits.append)
    gpu_memory.limit_memory("cuda", 0.25)
    gpu_memory.limit_memory("cuda", 1.0)  # the same process, for a trial that needs all
    gpu_memory.limit_memory("cpu", 0.0)
    assert limits == [0.25 - CONTEXT_BYTES / total, 1.0]


def test_a_whole_epoch_is_measured(monkeypatch):
    """The measurement trains with every replicate and evaluates; the device and its counters are stood in for."""
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: None)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda: 123)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: type("", (), {"total_memory": 456}))
    rows = []
    real = gpu_memory.train_together

    def on_cpu(*arguments, device, **options):
        assert device == "cuda"
        for together in real(*arguments, device="cpu", **options):
            rows.append(together.row)
            yield together

    monkeypatch.setattr(gpu_memory, "train_together", on_cpu)
    config = to_dict(TrainConfig(data=Digits(), network=Mlp(hidden=(4,)), latent_size=2, epochs=3))
    assert gpu_memory.measure(config, None, 2, "val/elbo") == Measured(total=456, peak=123)
    assert len(rows) == 1
    assert "val/elbo" in rows[0]


FIXED = [{"CPU": 4.0, "GPU": 1.0}, {"CPU": 4.0, "GPU": 1.0}, {"CPU": 16.0}]


@pytest.mark.parametrize("asked", [Resources(cpus_per_trial=4, gpus_per_trial=0.5), Resources(cpus_per_trial=16)])
def test_what_a_node_can_serve_is_let_through(asked):
    """One node must have all of it; how many are free does not matter: trials queue."""
    cluster.check_capacity(asked, FIXED, [])


@pytest.mark.parametrize("asked", [Resources(cpus_per_trial=8, gpus_per_trial=1), Resources(cpus_per_trial=17)])
def test_what_no_node_can_serve_is_refused(asked):
    """Enough in all but on no one node: refused with what is asked and what the nodes have."""
    with pytest.raises(UserError, match=r"its nodes have 2 × \(4 CPU, 1 GPU\), \(16 CPU\); lower"):
        cluster.check_capacity(asked, FIXED, [])


def test_nodes_to_come_count():
    """A cluster that grows: what a node to come can serve is let through, what none can is refused; unknown, neither."""
    asked = Resources(cpus_per_trial=32)
    cluster.check_capacity(asked, FIXED, [{"CPU": 32.0}])
    cluster.check_capacity(asked, FIXED, None)
    with pytest.raises(UserError, match=r"and those it can add \(8 CPU\)"):
        cluster.check_capacity(asked, FIXED, [{"CPU": 8.0}])


BOOTSTRAP = """
head_node_type: head
max_workers: 2
available_node_types:
  head: {resources: {CPU: 0}}
  gpu: {resources: {CPU: 4, GPU: 1}}
  none: {resources: {CPU: 64}, max_workers: 0}
"""


def test_what_ray_up_may_add_is_read_from_its_configuration(tmp_path, monkeypatch):
    """Kinds of node that may be started, the head not among them; no file: a fixed cluster; unreadable: not known."""
    monkeypatch.setattr(cluster.state, "get_cluster_config", lambda: None)  # no cluster runs here
    monkeypatch.setattr(cluster, "grows", lambda: False)
    path = tmp_path / "ray_bootstrap_config.yaml"
    assert cluster.addable_nodes(path) == []
    path.write_text(BOOTSTRAP)
    assert cluster.addable_nodes(path) == [{"CPU": 4.0, "GPU": 1.0}]
    for unknown in (BOOTSTRAP.replace("{resources: {CPU: 4, GPU: 1}}", "{}"), "max_workers: [", "3", "a: 1"):
        path.write_text(unknown)
        assert cluster.addable_nodes(path) is None
    path.unlink()
    monkeypatch.setattr(cluster, "grows", lambda: True)
    assert cluster.addable_nodes(path) is None


def test_nodes_that_are_still_joining_are_waited_for():
    """The head has no CPU for trials; a node comes at the third look. Nobody comes: that is said, after the time given."""
    head = {"memory": 1e9}
    looks = iter([[head], [head, {"CPU": 0.0}], [head, {"CPU": 2.0}]])
    assert cluster.await_nodes(lambda: next(looks), patience_s=20)
    assert next(looks, None) is None
    assert not cluster.await_nodes(lambda: [head], patience_s=0.05)
    assert cluster.await_nodes(lambda: [{"CPU": 4.0}], patience_s=0.0)
