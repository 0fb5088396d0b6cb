"""Parts from outside the tree: found by path, used like any other, told apart by their source; refused in one line."""

from __future__ import annotations

import hashlib
import math
import pickle
import textwrap

import pytest
import torch

from tests.support.parts import OUTSIDE
from tests.support.small import few_digits, run
from vae.config import ConfigError
from vae.data import load_test, load_training
from vae.external import External, external_sources, locate, named_parts
from vae.serialization import config_hash, from_dict, from_json, to_dict, to_json
from vae.train_config import TrainConfig

SOURCE = OUTSIDE.read_text(encoding="utf-8")
PARTS = {"objective": "Tempered", "likelihood": "Probit", "network": "Linear", "data": "Stripes"}
SMALL = {"epochs": 1, "batch_size": 8, "latent_size": 2, "network": {"kind": "mlp", "hidden": [4]}}


@pytest.fixture
def file(tmp_path):
    """A user's file with a part of each kind."""
    path = tmp_path / "mine.py"
    path.write_text(SOURCE, encoding="utf-8")
    return path


def named(file, place, **settings):
    """The part for ``place`` that ``file`` has, as JSON names it."""
    return {"kind": "external", "path": f"{file}:{PARTS[place]}", "settings": settings}


def data_of(config):
    """A few digits, or the user's own set."""
    return load_training(config.data, None) if config.data.kind == "external" else few_digits(24, 12)


@pytest.mark.parametrize("places", [*((place,) for place in PARTS), tuple(PARTS)], ids="+".join)
def test_a_part_from_a_file_trains(file, places):
    """Each alone and all together: finite numbers, and the file's sha256 by the part's path."""
    config = from_dict(SMALL | {place: named(file, place) for place in places})
    rows, _ = run(config, data_of(config))
    assert math.isfinite(rows[-1]["val/elbo"])
    assert math.isfinite(rows[-1]["train/loss"])
    digest = hashlib.sha256(SOURCE.encode()).hexdigest()
    assert external_sources(config) == {f"{file}:{PARTS[place]}": digest for place in places}


@pytest.mark.parametrize("place", PARTS)
def test_it_survives_json(file, place):
    """Written and read back it is the same config, settings included, with the same hash; and pickled too."""
    settings = {"objective": {"weight": 3.5}, "network": {"scale": 0.5}, "data": {"count": 30, "split_seed": 2}}
    config = from_dict(SMALL | {place: named(file, place, **settings.get(place, {}))})
    again = from_json(to_json(config))
    assert again == config
    assert config_hash(again) == config_hash(config)
    assert hash(getattr(again, place)) == hash(getattr(config, place))
    assert to_dict(again)[place] == named(file, place, **settings.get(place, {}))
    assert pickle.loads(pickle.dumps(config)) == config


def test_settings_are_the_classs_own(file):
    """They reach the class, and configs that differ in them are not the same."""
    one, other = (from_dict(SMALL | {"objective": named(file, "objective", weight=weight)}) for weight in (1.0, 4.0))
    assert (one.objective.weight, other.objective.weight) == (1.0, 4.0)
    assert config_hash(one) != config_hash(other)
    assert one != other
    row = run(other, few_digits(24, 12))[0][0]
    expected = row["train/reconstruction"] + 4 * row["train/root_kl"]
    assert row["train/loss"] == pytest.approx(expected, rel=1e-5)
    assert from_dict(SMALL | {"objective": named(file, "objective")}).objective.weight == 2.0


def test_a_data_set_of_ones_own_is_divided_and_tested(file):
    """Its own number of held-out examples unless the settings say another; a test part that is another draw."""
    config = from_dict(SMALL | {"data": named(file, "data", count=30)})
    data = load_training(config.data, None)
    assert (len(data.train), len(data.validation), data.levels, data.num_classes) == (22, 8, 4, 2)
    assert data.shape == (1, 6, 6)
    more = load_training(from_dict(SMALL | {"data": named(file, "data", count=30, validation=10)}).data, None)
    assert len(more.validation) == 10
    assert more.data_hash == data.data_hash
    assert load_test(config.data, None).digest not in {data.train.digest, data.validation.digest}


def test_the_sources_of_a_config_without_any():
    """Parts of this project are vouched for by its own fingerprint."""
    assert external_sources(TrainConfig()) == {}


def test_another_source_has_another_digest(tmp_path):
    """Two files that define the same class are told apart."""
    digests = set()
    for name, more in (("one.py", ""), ("two.py", "# a comment\n")):
        (tmp_path / name).write_text(SOURCE + more, encoding="utf-8")
        digests.add(External(path=f"{tmp_path / name}:Tempered").source_sha256)
    assert len(digests) == 2


def test_the_digest_is_of_what_was_imported(file):
    """A file that is edited after it was read does not change what a record says was run."""
    part = External(path=f"{file}:Tempered")
    file.write_text(SOURCE.replace("2.0", "9.0"), encoding="utf-8")
    again = External(path=f"{file}:Tempered")
    assert again.weight == 2.0
    assert again.source_sha256 == part.source_sha256 == hashlib.sha256(SOURCE.encode()).hexdigest()


def test_files_and_modules_are_looked_for_beside_the_working_directory(tmp_path, monkeypatch):
    """A relative path, and a module of a package, are found in the folders that $RESEARCH_PATH lists, in order."""
    for folder, weight in (("first", 5.0), ("second", 6.0)):
        package = tmp_path / folder / "my_parts_of_a_test"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("", encoding="utf-8")
        (package / "objectives.py").write_text(SOURCE.replace("2.0", str(weight)), encoding="utf-8")
    monkeypatch.setenv("RESEARCH_PATH", f"{tmp_path / 'nowhere'}:{tmp_path / 'first'}:{tmp_path / 'second'}")
    assert External(path="my_parts_of_a_test/objectives.py:Tempered").weight == 5.0
    assert External(path="my_parts_of_a_test.objectives:Tempered").weight == 5.0


def test_the_working_directory_comes_first(tmp_path, monkeypatch):
    """A relative path is one from where the program runs."""
    (tmp_path / "objective_of_this_test.py").write_text(SOURCE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert External(path="objective_of_this_test.py:Tempered").weight == 2.0


@pytest.mark.parametrize(
    ("path", "settings", "words"),
    [
        ("{file}", {}, "path must be 'package.module:Class' or 'file.py:Class', got"),
        ("{file}:", {}, "path must be"),
        (":Tempered", {}, "path must be"),
        ("{file}:not a name", {}, "path must be"),
        ("{folder}/absent.py:Tempered", {}, "can't be imported: FileNotFoundError: no such file in"),
        ("no_such_module_anywhere:Tempered", {}, "can't be imported: ModuleNotFoundError"),
        ("builtins:dict", {}, "builtins has no class 'dict' that is a dataclass"),
        ("{file}:Absent", {}, "has no class 'Absent'"),
        ("{file}:annotations", {}, "has no class 'annotations'"),
        ("{folder}/broken.py:Tempered", {}, "can't be imported: SyntaxError"),
        ("{folder}/raises.py:Tempered", {}, "can't be imported: RuntimeError: two lines of it"),
        ("{file}:Tempered", {"wieght": 1.0}, "can't be made of settings"),
        ("{folder}/strict.py:Strict", {"weight": -1.0}, "weight: Input should be greater than 0, got -1.0"),
    ],
)
def test_what_cannot_be_imported_or_made_is_refused_in_one_line(file, path, settings, words):
    """While the config is read, naming the place and the path as it was written, with no traceback's lines in it."""
    (file.parent / "broken.py").write_text("class Tempered(:\n", encoding="utf-8")
    (file.parent / "raises.py").write_text("raise RuntimeError('two lines\\nof it')\n", encoding="utf-8")
    strict = """
        from typing import Literal
        from vae.config import PositiveFloat, part

        @part
        class Strict:
            kind: Literal["strict"] = "strict"
            weight: PositiveFloat = 1.0
    """
    (file.parent / "strict.py").write_text(textwrap.dedent(strict), encoding="utf-8")
    path = path.format(file=file, folder=file.parent)
    with pytest.raises(ConfigError) as refusal:
        from_dict(SMALL | {"objective": {"kind": "external", "path": path, "settings": settings}})
    line = str(refusal.value)
    assert words in line
    assert path in line
    assert "objective" in line
    assert "\n" not in line


def test_what_the_class_lacks_is_an_attribute_error(file):
    """Asked for something that the user's class doesn't have, the part says so as any object does."""
    part = External(path=f"{file}:Tempered")
    assert part.annealing_epochs(3) == 0
    assert not hasattr(part, "adversary")
    assert not hasattr(part, "_private")


def test_a_likelihood_from_a_file_scores_as_it_says(file):
    """The user's own −log p is what the rows' reconstruction is made of."""
    config = from_dict(SMALL | {"likelihood": named(file, "likelihood")})
    module = config.likelihood.build(levels=16)
    output, x = torch.tensor([[0.0, 1.0]]), torch.tensor([[0.25, 0.5]])
    expected = 0.5 * (x - torch.distributions.Normal(0.0, 1.0).cdf(output)).square()
    assert torch.allclose(expected, module.nll(output, x))
    row = run(config, few_digits(24, 12))[0][0]
    assert 0 <= row["val/reconstruction"] <= 32  # 64 pixels in [0, 1], at most ½ each


@pytest.mark.parametrize("where", ["import", "made"])
def test_external_part_that_ends_the_process_is_refused_in_one_line(tmp_path, where):
    """At import, and while its class makes itself."""
    ending = "import sys; sys.exit(0)" if where == "import" else ""
    (tmp_path / "mine.py").write_text(
        f"{ending}\nfrom dataclasses import dataclass\n@dataclass(frozen=True)\nclass Mine:\n"
        "    def __post_init__(self): raise KeyboardInterrupt\n"
    )
    with pytest.raises(ConfigError, match=r"external part .*mine\.py:Mine' raised \w+\(.*mine\.py, line"):
        from_dict(SMALL | {"objective": {"kind": "external", "path": f"{tmp_path / 'mine.py'}:Mine", "settings": {}}})


def test_locate_finds_what_an_import_would_run_and_runs_nothing(tmp_path, monkeypatch):
    """Of a file, a module, one in a package, and one in a folder without ``__init__.py``."""
    monkeypatch.chdir(tmp_path)
    mark = "import pathlib\npathlib.Path('ran').touch()\n"
    for name in ("one.py", "pack/__init__.py", "pack/two.py", "plain/deep/three.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(mark)
    found = {path: locate(path) for path in ("one.py:A", "one:A", "pack:A", "pack.two:A", "plain.deep.three:A")}
    assert {path: str(file.relative_to(tmp_path)) for path, file in found.items()} == {
        "one.py:A": "one.py",
        "one:A": "one.py",
        "pack:A": "pack/__init__.py",
        "pack.two:A": "pack/two.py",
        "plain.deep.three:A": "plain/deep/three.py",
    }
    assert locate("vae.networks.mlp:Mlp").name == "mlp.py"
    assert [locate(path) for path in ("none.py:A", "no.such:A", "", "a\0b:C", ":x", "..:x")] == [None] * 6
    assert not (tmp_path / "ran").exists()


def test_named_parts_are_read_without_importing_them():
    """Wherever in the JSON they are."""
    inner = {"kind": "external", "path": "b.py:B", "settings": {"x": [{"kind": "external", "path": "c.py:C"}]}}
    assert named_parts({"network": {"kind": "external", "path": "a.py:A"}, "objective": [inner]}) == [
        "a.py:A",
        "b.py:B",
        "c.py:C",
    ]
