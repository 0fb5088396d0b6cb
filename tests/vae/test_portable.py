"""A model folder: what was trained comes back without data or pickle; what is damaged is refused in one line."""

from __future__ import annotations

import dataclasses
import json

import pytest
import safetensors.torch
import torch

from tests.support.small import few_digits, held_out, small_config
from vae.conditioning import OnLabel
from vae.config import ConfigError
from vae.data import Digits
from vae.evaluate import held_out_metrics, importance_weighted_nll
from vae.likelihoods import Bernoulli, Gaussian
from vae.measure import measure_of
from vae.networks import Conv, Mlp
from vae.portable import CONFIG_FILE, WEIGHTS_FILE, load_model, weights_file
from vae.priors import LabelConditional
from vae.serialization import to_json
from vae.train import train

VARIANTS = {
    "vae": {},
    "cvae": {"conditioning": OnLabel(at="every_layer"), "prior": LabelConditional()},
    "conv": {"network": Conv(channels=(2, 3), dense=5)},
    "ema": {"ema_decay": 0.9},
    "learned-variance": {"likelihood": Gaussian(learned="shared")},
    "bernoulli": {"likelihood": Bernoulli(), "data": Digits(binarisation="dynamic")},
    "dropout": {"network": Mlp(hidden=(8,), dropout=0.5)},
}


def folder_of(path, result, config):
    """Write what a model folder holds."""
    path.mkdir(exist_ok=True)
    (path / CONFIG_FILE).write_text(to_json(config))
    (path / WEIGHTS_FILE).write_bytes(weights_file(result.state))
    return path


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_round_trip(changes, tmp_path):
    """The loaded model scores what its row says, to the last digit, and is in evaluation mode."""
    config = small_config(**changes)
    data = few_digits()
    *_, result = train(config, data)
    again, model = load_model(folder_of(tmp_path / "model", result, config))
    assert again == config
    assert not model.training
    measure = measure_of(config, data.validation, levels=data.levels)
    scores = held_out_metrics(model, held_out(config, data), config.eval, measure)
    assert {f"val/{name}": value for name, value in scores.items()}.items() <= result.row.items()


def test_p_of_y_comes_with_the_model(tmp_path):
    """The labels' frequencies are among the weights: p(x) can be had without the training data."""
    data = dataclasses.replace(
        few_digits(), train=dataclasses.replace(few_digits().train, labels=few_digits().train.labels.clamp(max=3))
    )
    config = small_config(conditioning=OnLabel(), epochs=1)
    result = next(train(config, data))
    _, model = load_model(folder_of(tmp_path / "model", result, config))
    estimates = [
        importance_weighted_nll(m, held_out(config, data), k=3, images=10, seed=0, split="validation", marginal=True)
        for m in (result.model, model)
    ]
    assert estimates[0] == estimates[1]
    counts = torch.bincount(data.train.labels, minlength=10) / len(data.train.labels)
    assert torch.allclose(model.label_log_prior.exp(), counts)


def test_equal_weights_are_equal_files():
    """The file of a model is a function of its weights: its hash is its identity."""
    result = next(train(small_config(), few_digits()))
    assert len({weights_file(result.state) for _ in range(5)}) == 1


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A model folder to damage copies of."""
    config = small_config(network=Mlp(hidden=(2,)), epochs=1)
    return folder_of(tmp_path_factory.mktemp("model"), next(train(config, few_digits())), config)


def damaged(whole, tmp_path, **files):
    """A copy of the folder with other contents, or without a file where None."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        content = files.get(name.partition(".")[0], (whole / name).read_bytes())
        if content is not None:
            (copy / name).write_bytes(content)
    return copy


def weights_with(whole, *, sizes=None, drop=None, metadata=True, shape=None):
    """The weights file, altered but well-formed."""
    tensors = safetensors.torch.load_file(whole / WEIGHTS_FILE)
    with safetensors.safe_open(whole / WEIGHTS_FILE, framework="pt") as file:
        right = json.loads(file.metadata()["sizes"])
    if drop:
        del tensors[drop]
    if shape:
        tensors[shape] = torch.zeros(1)
    text = sizes if isinstance(sizes, str) else json.dumps(right | (sizes or {}))
    return safetensors.torch.save(tensors, metadata={"sizes": text} if metadata else None)


@pytest.fixture(scope="module")
def damages(whole):
    """What may happen to the two files, by name: other contents, or None for a missing file."""
    config, weights = ((whole / name).read_bytes() for name in (CONFIG_FILE, WEIGHTS_FILE))
    other_network = small_config(network=Mlp(hidden=(3,)), epochs=1)
    too_deep = small_config(network=Conv(channels=(2,) * 9))
    first = "encoder.affine.0.weight"
    return {
        "no config": {"config": None},
        "empty config": {"config": b""},
        "torn config": {"config": config[:100]},
        "config of bytes": {"config": b"\xff\xfe\x00"},
        "config of another network": {"config": to_json(other_network).encode()},
        "config with an unknown key": {"config": b'{"epocs": 3}'},
        "config of a part that does not fit": {"config": to_json(too_deep).encode()},
        "no weights": {"model": None},
        "empty weights": {"model": b""},
        "torn weights": {"model": weights[:-10]},
        "half weights": {"model": weights[:200]},
        "weights with a lying header": {"model": b"\xff" * 8 + b"{}"},
        "a pickle for weights": {"model": b"\x80\x02cos\nsystem\n(S'true'\ntR."},
        "weights without sizes": {"model": weights_with(whole, metadata=False)},
        "weights of other sizes": {"model": weights_with(whole, sizes={"height": 9})},
        "sizes of text": {"model": weights_with(whole, sizes={"height": "8"})},
        "negative sizes": {"model": weights_with(whole, sizes={"height": -8})},
        "sizes that are no JSON": {"model": weights_with(whole, sizes="{")},
        "sizes that are a list": {"model": weights_with(whole, sizes="[1]")},
        "a tensor too few": {"model": weights_with(whole, drop=first)},
        "a tensor of another shape": {"model": weights_with(whole, shape=first)},
    }


def test_a_damaged_folder_is_refused(whole, tmp_path, damages):
    """Whatever is missing, torn or of something else: one line, a ConfigError, naming the folder."""
    for case, files in damages.items():
        place = tmp_path / case
        place.mkdir()
        copy = damaged(whole, place, **files)
        with pytest.raises(ConfigError) as refusal:
            load_model(copy)
        line = str(refusal.value)
        assert "\n" not in line, case
        assert str(copy) in line, case
        assert len(line) < 700, case


def test_no_folder_is_refused(tmp_path):
    """A path that isn't there is named."""
    with pytest.raises(ConfigError, match="nowhere"):
        load_model(tmp_path / "nowhere")


def test_the_undamaged_copy_loads(whole, tmp_path):
    """The helpers damage nothing that they are not asked to."""
    load_model(damaged(whole, tmp_path))
    (tmp_path / "again").mkdir()
    load_model(damaged(whole, tmp_path / "again", model=weights_with(whole)))
