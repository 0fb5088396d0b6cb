"""Configs that are wrong: one line with the path to the key, exit code 2, before Ray or a worker is started."""

from __future__ import annotations

import json
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research.cli import app as cli
from tests.support.strategies import train_configs
from vae.config import ConfigError
from vae.serialization import from_json, to_dict

CONFIG = "19 malformed config"


@pytest.fixture
def refusal(capsys, monkeypatch):
    """The one line with which ``research`` refuses some arguments."""

    def attempt(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["research", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        captured = capsys.readouterr()
        assert stopped.value.code == 2
        assert captured.err.startswith("error: ")
        assert captured.err.count("\n") == 1
        assert len(captured.err) < 1600
        assert "ray.tune" not in captured.err
        return captured.err

    return attempt


@pytest.mark.fault(CONFIG)
@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"latnt_size": 4}', "unknown key 'latnt_size': did you mean 'latent_size'?"),
        ('{"optimizer": {"kind": "adam", "rl": 1}}', "unknown key 'optimizer.rl'"),
        ('{"optimizer": {"kind": "adam", "lr": "1e-3"}}', "optimizer.lr must be number, got '1e-3'"),
        ('{"optimizer": {"kind": "adam", "lr": NaN}}', "optimizer.lr must be a finite number, got nan"),
        ('{"optimizer": {"kind": "adam", "lr": 1e999}}', "optimizer.lr must be a finite number, got inf"),
        ('{"optimizer": {"kind": "adam", "lr": -Infinity}}', "optimizer.lr must be a finite number, got -inf"),
        ('{"epochs": true}', "epochs must be integer, got True"),
        ('{"epochs": 1.5}', "epochs must be integer, got 1.5"),
        ('{"network": {"kind": "mlp", "hidden": [8, 0]}}', "network.hidden[1] must be greater than 0, got 0"),
        ('{"network": []}', "network"),
        ('{"seed": 1, "seed": 2}', "key 'seed' appears twice"),
        ('{"optimizer": {"kind": "adam", "kind": "sgd"}}', "key 'kind' appears twice"),
        ('{"latent_size": ' + "9" * 30 + "}", "the model can't be built"),
        ('{"latent_size": ' + "9" * 5000 + "}", "not JSON that can be read"),
        ("[" * 100_000, "not JSON that can be read"),
        ('{"network":' * 20_000, "not JSON that can be read"),
        ("[]", "the config must be an object"),
        ("null", "the config must be an object"),
        ("", "not JSON"),
        ("{}\0", "not JSON"),
        ('{"\\ud800": 1}', "not JSON"),
        ('{"' + "k" * 5000 + '": 1}', "unknown key"),
        ('{"config_hash": 1, "config": {}}', "is not a record of format 1"),
        ("!!python/object/apply:os.system ['true']", "not JSON"),
    ],
)
def test_a_malformed_config_is_one_line(tmp_path, refusal, tally, text, told):
    """Unknown keys, other types, NaN and infinity, doubled keys, numbers and nesting without end; YAML is read nowhere."""
    file = tmp_path / "config.json"
    file.write_text(text, encoding="utf-8", errors="surrogatepass")
    tally.happened()
    assert told in refusal("train", file, "--out", tmp_path / "model")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json"]


@pytest.mark.fault(CONFIG)
@pytest.mark.parametrize(
    ("drawn", "told"),
    [
        ('latent_size=trial.suggest_int("n", 8, 2)', "low <= high"),
        ('ema_decay=trial.suggest_float("e", 0.5, 0.1)', "low <= high"),
        ('optimizer=Adam(lr=trial.suggest_float("lr", 0.0, 1e-2, log=True))', "must hold for `log=True`"),
        ('latent_size=trial.suggest_int("n", 0, 8, log=True)', "log"),
        ('ema_decay=trial.suggest_float("e", float("nan"), 0.5)', "OverflowError"),
        ('ema_decay=trial.suggest_float("e", 0.1, float("inf"))', "OverflowError"),
        ('latent_size=trial.suggest_categorical("n", [])', "choices"),
        ('optimizer=Adam(lr="1e-3")', "lr must be number, got '1e-3'"),
        ("latent=4", "unknown key 'latent'"),
        ('latent_size=trial.suggest_int("n", 2, 8) / 0', "division by zero"),
    ],
)
def test_a_range_that_is_none_is_refused_before_ray_starts(tmp_path, refusal, tally, drawn, told):
    """Empty or inverted ranges, logarithms of 0, bounds that are no numbers: found in the survey of the space."""
    space = tmp_path / "space.py"
    space.write_text(
        "from vae.data import Digits\nfrom vae.likelihoods import Binomial\nfrom vae.optimizers import Adam\n"
        "from vae.train_config import TrainConfig\n\n"
        f"def space(trial):\n    return TrainConfig(data=Digits(), likelihood=Binomial(), {drawn})\n"
    )
    tally.happened()
    line = refusal("sweep", space, "--storage", tmp_path / "s", "--name", "x", "--wandb", "disabled")
    assert told in line
    assert not (tmp_path / "s").exists()


@pytest.mark.fault(CONFIG)
@pytest.mark.parametrize(
    "content", [b"\xff\xfe", b"def space(:\n", b"\0", b"space = 3\n", b"import absent_module_xyz\n", b""]
)
def test_a_space_that_is_no_space_is_one_line(tmp_path, refusal, tally, content):
    """No text, no Python, no function, no module that it needs."""
    space = tmp_path / "mine.py"
    space.write_bytes(content)
    tally.happened()
    assert "mine.py" in refusal("sweep", space, "--storage", tmp_path / "s")


@pytest.mark.fault(CONFIG)
@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{}",
        "[{}]",
        "3",
        "[1]",
        '[{"lr": NaN}]',
        '[{"lr": 1e999}]',
        "[" * 10_000,
        "{",
        "\udcff",
        '{"config_hash": 1}',
    ],
)
def test_start_from_something_else_is_one_line(tmp_path, refusal, tally, text):
    """What is no object of parameters, finite numbers, is refused with the file's name."""
    file = tmp_path / "start.json"
    file.write_text(text, encoding="utf-8", errors="surrogateescape")
    tally.happened()
    line = refusal("sweep", "quickstart", "--start-from", file, "--storage", tmp_path / "s")
    assert str(file) in line


@pytest.mark.fault(CONFIG)
@pytest.mark.parametrize("argument", ["x" * 5000, "a\0b"[:1] * 300 + "/x", "/", "/dev/null"])
def test_a_file_that_is_none_is_one_line(tmp_path, refusal, tally, argument):
    """A name too long, a directory, a device, where a file is asked for."""
    tally.happened()
    for verb in (
        ("sweep", argument, "--storage", tmp_path),
        ("train", argument),
        ("train", argument + ".json"),
        ("show", argument),
    ):
        refusal(*verb)


@settings(max_examples=20)
@given(train_configs(), st.text(min_size=1, max_size=12), st.data())
def test_any_unknown_key_anywhere_is_refused_by_its_path(config, name, data):
    """Wherever it is put; what is there already is another matter."""
    values = to_dict(config)
    here, path = values, []
    while (parts := sorted(k for k, v in here.items() if isinstance(v, dict))) and data.draw(st.booleans()):
        path.append(data.draw(st.sampled_from(parts)))
        here = here[path[-1]]
    if name in here:
        return
    here[name] = 1
    with pytest.raises(ConfigError) as refused:
        from_json(json.dumps(values))
    assert "\n" not in str(refused.value).replace(name, "")
    assert "unknown key" in str(refused.value)
    assert ".".join(path) in str(refused.value)
