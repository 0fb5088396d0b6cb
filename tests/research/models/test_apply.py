"""The verbs on kept models: what they write, what they say, what they refuse, and the looks that they leave."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from pyarrow import parquet
from scipy import stats

from research.cli import app as cli
from research.cli.runs import _config_of
from research.errors import CorruptFile, UserError
from research.experiments.ablation_table import paired_difference
from research.experiments.single import train_once
from research.experiments.variants import read_subject
from research.ledger.records import load_record
from research.models import apply
from research.models.looks import model_hash
from research.models.model_card import model_card
from research.store.folders import verify_folder
from tests.support.resealed import reseal
from tests.support.synthetic import new_ledger, row, trial
from vae.conditioning import OnLabel, OnQuadrants
from vae.data import Arrays, Digits
from vae.data.dataset import make_split
from vae.data.pixels import pixels_of
from vae.evaluate import importance_weighted_nll
from vae.likelihoods import Gaussian
from vae.networks import Conv, Mlp
from vae.objectives import Elbo, Iwae, Reconstruction
from vae.portable import load_model
from vae.posteriors import Deterministic, FullCovariance
from vae.train_config import Evaluation, TrainConfig

SMALL = {"network": Mlp(hidden=(8,)), "latent_size": 3, "epochs": 1, "eval": Evaluation(samples=2)}
CONFIGS = {
    "first": TrainConfig(network=Mlp(hidden=(8,)), latent_size=3, epochs=1, eval=Evaluation(samples=2, subset="first")),
    "binary": TrainConfig(
        **SMALL, data=Arrays(path="table.npz", labels="y", scaling="standardise"), likelihood=Gaussian()
    ),
    "binary-told": TrainConfig(
        **SMALL,
        data=Arrays(path="table.npz", labels="y", scaling="standardise"),
        likelihood=Gaussian(),
        conditioning=OnLabel(),
    ),
    "vae": TrainConfig(**SMALL),
    "other": TrainConfig(**SMALL, objective=Elbo(beta=4.0), seed=1),
    "iwae": TrainConfig(**SMALL, objective=Iwae(k=3)),
    "full": TrainConfig(**SMALL, posterior=FullCovariance()),
    "other noise": TrainConfig(**(SMALL | {"eval": Evaluation(samples=2, seed=3)})),
    "cvae": TrainConfig(**SMALL, conditioning=OnLabel()),
    "quadrants": TrainConfig(**SMALL, conditioning=OnQuadrants()),
    "ae": TrainConfig(**SMALL, posterior=Deterministic(), objective=Reconstruction()),
    "conv": TrainConfig(
        network=Conv(channels=(4, 4), dense=8, normalisation="batch"), latent_size=3, epochs=1, batch_size=256
    ),
    "whole": TrainConfig(**SMALL, data=Digits(validation=0)),
    "table": TrainConfig(
        **SMALL, data=Arrays(path="table.npz", labels="y", train_label=0, scaling="standardise"), likelihood=Gaussian()
    ),
}


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A folder of each of ``CONFIGS`` that is asked for, trained once."""
    home = tmp_path_factory.mktemp("kept")
    generator = np.random.default_rng(0)
    labels = (np.arange(400) % 8 == 0).astype(np.int64)
    values = generator.normal(size=(400, 6)) + 4.0 * labels[:, None]
    np.savez(home / "table.npz", x=values.astype(np.float32), y=labels)

    def folder(name):
        out = home / name
        if not out.exists():
            config = CONFIGS[name]
            train_once(config, source="test", out=out, data_dir=home, threads=1, device="cpu", on_row=lambda _: None)
        return out

    return folder


@pytest.fixture
def research(capsys, monkeypatch, tmp_path):
    """Run a verb where ``tmp_path`` is the working directory; what it prints."""
    monkeypatch.chdir(tmp_path)
    # Threads belong to the process that runs the tests.
    for verbs in ("models", "runs"):
        monkeypatch.setattr(f"research.cli.{verbs}.set_threads", lambda _: None)

    def run(*arguments, code=0):
        monkeypatch.setattr(sys, "argv", ["research", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        captured = capsys.readouterr()
        assert stopped.value.code == code, captured.err
        if code == 2:
            assert captured.out == ""
            assert captured.err.startswith("error: ")
            assert captured.err.count("\n") == 1
            return captured.err
        return captured.out

    return run


def numbers(printed):
    """The JSON that was printed."""
    return json.loads(printed)


@pytest.mark.parametrize("name", ["vae", "cvae", "quadrants", "ae", "conv"])
@pytest.mark.parametrize("verb", ["reconstruct", "denoise", "inpaint", "interpolate", "traverse"])
def test_pictures_and_arrays(research, kept, tmp_path, name, verb):
    """Every picture verb works on every kind of model, as a picture and as the arrays in it, and leaves nothing else."""
    research(verb, kept(name), "--out", "x.png")
    with Image.open("x.png") as image:
        image.load()
        assert image.format == "PNG"
    research(verb, kept(name), "--out", "x.npz")
    with np.load("x.npz") as arrays:
        assert all(array.shape[1:] == (1, 8, 8) and len(array) > 1 for array in arrays.values())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.npz", "x.png"]


def test_reconstructions_are_the_models(research, kept):
    """The arrays are a subset of the held-out examples and E[x|z] of each at the posterior mean."""
    research("reconstruct", kept("cvae"), "--count", 12, "--out", "x.npz")
    _, model = load_model(kept("cvae"))
    opened = apply.open_model(kept("cvae"))
    rows = opened.pixels.subset(12)
    x, labels = opened.pixels.batch(rows), opened.pixels.labels[rows]
    with torch.no_grad():
        condition = model.condition(x, labels)
        expected = model.reconstruct(model.encode(x, condition).mean, condition)
    with np.load("x.npz") as arrays:
        assert np.array_equal(x.view(12, 1, 8, 8).numpy(), arrays["original"])
        assert np.allclose(expected.view(12, 1, 8, 8).numpy(), arrays["reconstruction"], atol=1e-6)


def test_long_rows_are_folded_and_short_pages_are_not(research, kept):
    """25 pairs are three pairs of rows, ten to a row; captions and title come beside and above."""
    sizes = {}
    for count in (10, 25):
        research("reconstruct", kept("vae"), "--count", count, "--out", f"{count}.png")
        with Image.open(f"{count}.png") as image:
            sizes[count] = image.size
    assert sizes[25][0] == sizes[10][0]
    assert sizes[25][1] - sizes[10][1] == 4 * 34


def test_samples_need_no_data(research, kept, tmp_path):
    """A folder that was carried to where no data are still gives samples, a row for each label where it knows them."""
    shutil.copytree(kept("cvae"), tmp_path / "carried")
    research("sample", "carried", "--count", 30, "--data-dir", "nowhere", "--out", "x.npz")
    with np.load("x.npz") as arrays:
        assert {f"label_{y}": (3, 1, 8, 8) for y in range(10)} == {n: a.shape for n, a in arrays.items()}
    research("sample", "carried", "--label", 7, "--count", 4, "--out", "seven.npz")
    with np.load("seven.npz") as arrays:
        assert [array.shape for array in arrays.values()] == [(4, 1, 8, 8)]


def test_encode(research, kept):
    """A row for each example, in order, of the posterior's mean and variance; the picture says how labels separate."""
    printed = research("encode", kept("cvae"), "--out", "c.parquet", "--picture", "c.png", "--by", "pca")
    assert "5-NN accuracy in 2-D" in printed
    table = parquet.read_table("c.parquet")
    opened = apply.open_model(kept("cvae"))
    x, labels = opened.pixels.batch(slice(0, len(opened.pixels))), opened.pixels.labels
    assert list(range(len(x))) == table["index"].to_pylist()
    assert labels.tolist() == table["label"].to_pylist()
    with torch.no_grad():
        posterior = opened.model.encode(x, opened.model.condition(x, labels))
    for i in range(3):
        assert np.allclose(posterior.mean[:, i].numpy(), table[f"mean_{i}"].to_numpy(), atol=1e-6)
        assert np.allclose(posterior.variance[:, i].numpy(), table[f"variance_{i}"].to_numpy(), atol=1e-6)
    with Image.open("c.png") as image:
        assert image.format == "PNG"


def test_codes_are_streamed(kept, tmp_path, monkeypatch):
    """Batch by batch, each its own row group."""
    monkeypatch.setattr("vae.apply.BATCH", 100)
    assert apply.encode(apply.open_model(kept("vae")), tmp_path / "c.parquet") == 287
    file = parquet.ParquetFile(tmp_path / "c.parquet")
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [100, 100, 87]


def test_a_file_that_fails_half_way_is_not_there(kept, tmp_path, monkeypatch):
    """Neither a torn file nor the temporary one is left, and what was there before stays."""
    out = tmp_path / "c.parquet"
    out.write_bytes(b"before")

    def torn(*_):
        raise OSError(28, "No space left on device")
        yield

    monkeypatch.setattr(apply, "codes", torn)
    with pytest.raises(UserError, match="No space left"):
        apply.encode(apply.open_model(kept("vae")), out)
    assert [out] == list(tmp_path.iterdir())
    assert out.read_bytes() == b"before"


def test_scores_agree_with_evaluate(research, kept):
    """The means that score prints are what evaluate says, and the file has them by example."""
    printed = numbers(research("score", kept("vae"), "--out", "s.parquet", "--json"))
    row_ = numbers(research("evaluate", kept("vae"), "--json"))
    table = parquet.read_table("s.parquet")
    assert table.column_names[:2] == ["index", "label"]
    for name in ("elbo", "reconstruction", "kl"):
        assert row_[f"val/{name}"] == pytest.approx(printed[name], rel=1e-6)
        assert row_[f"val/{name}"] == pytest.approx(table[name].to_numpy().mean(), rel=1e-6)
    assert row_["measure"] == printed["measure"]


def test_a_deterministic_code_has_no_elbo_to_score(research, kept):
    """Reconstruction and squared error alone."""
    research("score", kept("ae"), "--out", "s.parquet")
    assert {"index", "label", "reconstruction", "squared_error"} == set(parquet.read_table("s.parquet").column_names)


def test_anomalies_in_a_table(research, kept):
    """A model of one label ranks the other above it on the test part, without being told which is which."""
    data = kept("table").parent
    found = numbers(research("score", kept("table"), "--split", "test", "--data-dir", data, "--json"))
    assert found["of_label"] == [1]
    assert found["auroc_by_negative_elbo"] > 0.95
    assert found["auroc_by_squared_error"] > 0.9
    assert "both kinds" in research("score", kept("table"), "--anomaly-label", 1, "--data-dir", data, code=2)


def test_detection():
    """AUROC is the share of pairs in order; average precision is the mean precision at each positive."""
    scores = np.array([0.1, 0.4, 0.35, 0.8])
    found = apply.detection(scores, np.array([False, False, True, True]))
    assert found["auroc"] == pytest.approx(3 / 4)
    assert found["average_precision"] == pytest.approx((1 / 1 + 2 / 3) / 2)


def test_against_itself_names_the_known_failure(research, kept):
    """The same data are told apart by chance alone; likelihoods' known failure stands beside the number."""
    found = numbers(research("score", kept("vae"), "--against", "digits", "--json"))
    assert found["auroc_against_by_negative_elbo"] == pytest.approx(0.5)
    assert "Nalisnick" in found["known_failure"]


def test_compare(research, kept):
    """The difference is of the two elbos, paired: a model against itself is exactly 0, and sides change the sign."""
    found = numbers(research("compare", kept("vae"), kept("other"), "--json"))
    back = numbers(research("compare", kept("other"), kept("vae"), "--json"))
    one, other = (apply.score(apply.open_model(kept(name)), None)["elbo"] for name in ("vae", "other"))
    assert (one - other).mean() == pytest.approx(found["difference"])
    assert (one - other).std(ddof=1) / math.sqrt(len(one)) == pytest.approx(found["standard_error"])
    assert found["difference"] == pytest.approx(-back["difference"])
    low, high = found["interval_95"]
    interval = stats.ttest_rel(one, other).confidence_interval(0.95)
    assert (interval.low, interval.high) == pytest.approx((low, high))
    same = numbers(research("compare", kept("vae"), kept("vae"), "--json"))
    assert (same["difference"], same["standard_error"]) == (0.0, 0.0)
    assert numbers(research("compare", kept("ae"), kept("ae"), "--json"))["quantity"] == "reconstruction"


def test_compare_has_the_interval_of_ablate(research, kept):
    """The same pairs give the same numbers in both places."""
    found = numbers(research("compare", kept("vae"), kept("other"), "--json"))
    one, other = (apply.score(apply.open_model(kept(name)), None)["elbo"].tolist() for name in ("vae", "other"))
    expected = paired_difference(one, other)

    assert (expected.mean, expected.error) == (found["difference"], found["standard_error"])
    assert [expected.low, expected.high] == found["interval_95"]


def of_one_example(kept_model):
    """The same model, asked about the first example of its split alone."""
    config, split = kept_model.config, kept_model.split
    one = make_split(split.name, split.images[:1], split.labels[:1])
    pixels = pixels_of(one, config, 16, torch.device("cpu"), held_out=True)
    return dataclasses.replace(kept_model, split=one, pixels=pixels)


def test_compare_of_one_example_gives_no_interval(research, kept, monkeypatch):
    """One difference says nothing about the spread: no interval, in text and in JSON that any parser reads."""
    opened = apply.open_model
    monkeypatch.setattr(apply, "open_model", lambda *args, **kwargs: of_one_example(opened(*args, **kwargs)))
    found = json.loads(research("compare", kept("vae"), kept("other"), "--json"), parse_constant=pytest.fail)

    assert (found["standard_error"], found["interval_95"], found["examples"]) == (None, None, 1)
    assert "no interval" in research("compare", kept("vae"), kept("other"))


def test_compare_of_scores_that_are_not_finite_is_refused(kept, monkeypatch):
    """A mean with an infinite term is no number to print."""
    one = apply.open_model(kept("vae"))
    monkeypatch.setattr(apply, "score", lambda *_: {"elbo": np.array([1.0, -np.inf])})
    with pytest.raises(UserError, match="not finite"):
        apply.compare(one, one)


def test_score_refuses_to_find_a_label_that_the_model_is_given(research, kept, tmp_path):
    """Its scores are of p(x|y): the label that is looked for has been told. No look at test is left behind."""
    shutil.copytree(kept("cvae"), tmp_path / "m")
    for split in ("validation", "test"):
        line = research("score", "m", "--anomaly-label", 3, "--split", split, code=2)
        assert "p(x given y)" in line
        assert "conditioning.kind 'none'" in line
    assert not (tmp_path / "m" / "looks").exists()
    assert "elbo" in numbers(research("score", "m", "--json"))


def test_score_of_labels_0_and_1_finds_them_only_with_a_model_that_is_not_given_them(research, kept):
    """Without the option the scores are printed all the same, and the reason in place of an AUROC."""
    data = ("--data-dir", kept("binary").parent, "--json")
    found, told = (numbers(research("score", kept(name), *data)) for name in ("binary", "binary-told"))

    assert found["of_label"] == [1]
    assert "auroc_by_negative_elbo" in found
    assert "no_auroc" not in found
    assert "p(x given y)" in told["no_auroc"]
    assert not [name for name in told if name.startswith(("auroc", "average_precision", "of_label"))]
    assert "elbo" in told


@pytest.mark.parametrize("name", ["first", "vae"])
def test_picture_verbs_show_the_models_subset(research, kept, name):
    """By the rule of its config.json; the title says which examples these are."""
    opened = apply.open_model(kept(name))
    rows = opened.pixels.subset(5)
    printed = research("reconstruct", kept(name), "--count", 5, "--out", "x.npz")
    with np.load("x.npz") as arrays:
        assert np.array_equal(opened.pixels.batch(rows).view(5, 1, 8, 8).numpy(), arrays["original"])
    assert rows.tolist() == list(range(5)) or name == "vae"
    title = "validation examples 0 to 4" if name == "first" else "5 of 287 validation examples"
    assert title in printed
    assert "validation examples 0 to 286" in research("reconstruct", kept(name), "--count", 1000, "--out", "x.npz")
    for verb, first in (("denoise", "clean"), ("inpaint", "original")):
        research(verb, kept(name), "--count", 5, "--out", "x.npz")
        with np.load("x.npz") as arrays:
            assert np.array_equal(opened.pixels.batch(rows).view(5, 1, 8, 8).numpy(), arrays[first])


@pytest.mark.parametrize("name", ["first", "vae"])
def test_interpolate_and_traverse_take_named_examples_or_the_next_of_the_subset(research, kept, name):
    """A number is the place in the file, as in the tables of encode and score."""
    a, b, c = apply.open_model(kept(name)).pixels.subset(3).tolist()
    assert (a, b, c) == (0, 1, 2) or name == "vae"

    assert f"validation {a} to {b}" in research("interpolate", kept(name), "--out", "x.npz")
    assert f"validation 7 to {b}" in research("interpolate", kept(name), "--from", 7, "--out", "x.npz")
    assert f"validation {a} to {b}" in research("interpolate", kept(name), "--to", b, "--out", "x.npz")
    assert f"validation {b} to {c}" in research("interpolate", kept(name), "--from", b, "--out", "x.npz")
    assert f"validation {b} to {a}" in research("interpolate", kept(name), "--to", a, "--out", "x.npz")
    assert "validation 4 to 4" in research("interpolate", kept(name), "--from", 4, "--to", 4, "--out", "x.npz")
    assert f"validation example {a}," in research("traverse", kept(name), "--out", "x.npz")
    assert "validation example 9," in research("traverse", kept(name), "--example", 9, "--out", "x.npz")
    opened = apply.open_model(kept(name))
    research("interpolate", kept(name), "--from", 7, "--to", 3, "--out", "x.npz")
    with np.load("x.npz") as arrays:
        assert np.array_equal(opened.pixels.batch(torch.tensor([7, 3])).view(2, 1, 8, 8), arrays["originals"])


def test_plane_of_fewer_codes_than_the_split_has_is_of_the_subset(kept):
    """The scatter and its accuracy are of a permuted part."""
    opened = apply.open_model(kept("vae"))
    flat, labels, _ = apply.plane(opened, "dimensions", limit=60)

    assert opened.pixels.labels[opened.pixels.subset(60)].tolist() == labels.tolist()
    assert flat.shape == (60, 2)


def test_evaluate_images_are_those_of_the_models_rule(research, kept):
    """``--images`` below the split takes the subset; where it covers the split the two rules give equal numbers."""
    for name in ("first", "vae"):
        opened = apply.open_model(kept(name))
        for images in (40, 1000):
            asked = {"k": 4, "seed": 0, "split": "validation", "images": images}
            expected = importance_weighted_nll(opened.model, opened.pixels, **asked)
            found = numbers(research("evaluate", kept(name), "--nll", 4, "--images", images, "--json"))
            assert expected.nll == found["val/nll_iwae"]
            assert expected.images == found["val/nll_iwae_images"]


def without_subset(folder):
    """Make the model at ``folder`` one of an earlier version: its config lacks ``eval.subset``."""
    for name in ("config.json", "record.json"):
        values = json.loads((folder / name).read_text())
        del (values["config"] if name == "record.json" else values)["eval"]["subset"]
        (folder / name).write_text(json.dumps(values))
    reseal(folder)


def test_an_earlier_model_is_evaluated_and_shown_by_its_own_rule(research, kept, tmp_path):
    """A config.json without the field means the first examples, and looks that were stored before are found again."""
    for name in ("vae", "first"):
        shutil.copytree(kept(name), tmp_path / name)
    without_subset(tmp_path / "vae")
    asked = ("--nll", 4, "--images", 40, "--json")
    found, first = (numbers(research("evaluate", name, *asked)) for name in ("vae", "first"))
    assert found["val/nll_iwae"] == first["val/nll_iwae"]
    assert "validation examples 0 to 4" in research("reconstruct", "vae", "--count", 5, "--out", "x.npz")
    assert "validation 0 to 1" in research("interpolate", "vae", "--out", "x.npz")

    question = {
        "model": model_hash(tmp_path / "vae"),
        "measure": found["measure"].replace("validation", "test"),
        "eval": {
            "seed": 0,
            "samples": 2,
            "batch_size": 1000,
            "nll_k": 0,
            "nll_images": 1000,
            "classified_samples": 0,
        },
        "nll_k": 0,
        "images": 0,
    }
    research("evaluate", "vae", "--split", "test")
    (look,) = (tmp_path / "vae" / "looks").iterdir()
    stored = json.loads(look.read_text())["question"]
    assert {**question, "measure": stored["measure"]} == stored
    research("interpolate", "vae", "--split", "test", "--out", "x.npz")
    looks = [json.loads(path.read_text())["question"] for path in (tmp_path / "vae" / "looks").iterdir()]
    asked_before = {"from": 0, "to": 1, "steps": 10, "spherical": False}
    assert asked_before in [question.get("asked") for question in looks]


def test_an_earlier_models_config_is_read_as_recorded_wherever_it_is_named(kept, tmp_path):
    """As a folder, as its config.json, as its record; a person's own JSON without the field gets today's default."""
    folder = tmp_path / "m"
    shutil.copytree(kept("vae"), folder)
    without_subset(folder)
    for place in (folder, folder / "config.json", folder / "record.json"):
        assert _config_of(str(place), seed=0).eval.subset == "first"
    for place in (folder, folder / "config.json", folder / "record.json"):
        assert read_subject(place, 1).config.eval.subset == "first"
    own = tmp_path / "config.json"
    shutil.copyfile(folder / "config.json", own)
    assert _config_of(str(own), seed=0).eval.subset == "permuted"
    assert read_subject(own, 1).config.eval.subset == "permuted"


def test_different_measures_are_not_compared(research, kept):
    """Both measures are printed."""
    line = research("compare", kept("vae"), kept("cvae"), code=2)
    assert "p(x) counts(0..16)" in line
    assert "p(x|label) counts(0..16)" in line


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("iwae", "diagonal, importance-weighted objective, not diagonal"),
        ("full", "full_covariance, not diagonal"),
        ("other noise", "eval.seed is 3, not 0"),
    ],
)
def test_compare_models_whose_bounds_do_not_compare_is_refused(research, kept, name, named):
    """A bound of another tightness, or one estimated with other noise, gives no verdict; the remedy is named."""
    line = research("compare", kept(name), kept("vae"), code=2)
    assert named in line
    assert "research evaluate --nll K" in line


@pytest.mark.parametrize(
    "name", ["quadrants", *(pytest.param(name, marks=pytest.mark.slow) for name in ("vae", "cvae", "ae", "conv"))]
)
def test_export(kept, tmp_path, name):
    """The ONNX files give the model's numbers for a batch of a size that they were not made with."""
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    worst = apply.export(apply.open_alone(kept(name)), tmp_path)
    assert worst["encoder.mean"] < 1e-5
    _, model = load_model(kept(name))
    x = torch.rand(11, 64, generator=torch.Generator().manual_seed(1))
    condition = model.condition(x, torch.arange(11) % 10)
    with torch.no_grad():
        posterior = model.encode(x, condition)
        output = model.decode(posterior.mean, condition)
    for half, inputs, expected in (
        ("encoder", {"x": x}, (posterior.mean, posterior.variance)),
        ("decoder", {"z": posterior.mean}, (model.likelihood.mean(output), output)),
    ):
        session = onnxruntime.InferenceSession(str(tmp_path / f"{half}.onnx"), providers=["CPUExecutionProvider"])
        named = {i.name for i in session.get_inputs()}
        feed = inputs if condition is None else inputs | {"condition": condition}
        found = session.run(None, {key: value.numpy() for key, value in feed.items() if key in named})
        for want, got in zip(expected, found, strict=True):
            assert np.allclose(want.numpy(), got, rtol=1e-4, atol=1e-5)


def test_export_without_its_packages(research, kept, monkeypatch):
    """One line with what to install."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert "vae-research[export]" in research("export", kept("vae"), code=2)


def test_looks_at_test_are_written_down(research, kept, tmp_path):
    """One look for one question, with what was seen; asked again it is the same look; validation leaves none."""
    shutil.copytree(kept("vae"), tmp_path / "m")
    research("score", "m")
    research("reconstruct", "m")
    assert not (tmp_path / "m" / "looks").exists()
    printed = numbers(research("score", "m", "--split", "test", "--json"))
    (first,) = (tmp_path / "m" / "looks").iterdir()
    before = first.read_bytes()
    look = json.loads(before)
    assert printed["elbo"] == look["row"]["elbo"]
    assert look["question"]["measure"] == printed["measure"]
    research("score", "m", "--split", "test")
    assert before == first.read_bytes()
    research("reconstruct", "m", "--split", "test")
    research("reconstruct", "m", "--split", "test", "--count", 3)
    assert len(list((tmp_path / "m" / "looks").iterdir())) == 3


def test_where_a_model_may_be(kept, tmp_path):
    """Its folder, a record in it, or a sweep's directory by rank; a damaged one is refused by name."""
    folder = kept("vae")
    assert folder == apply.model_folder(folder)
    assert folder == apply.model_folder(folder / "record.json")
    ledger = new_ledger(tmp_path / "sweep")
    for number, elbo in ((0, -30.0), (1, -20.0)):
        ledger.append(trial(number))
        ledger.append(row(number, 1, elbo, "complete"))
    shutil.copytree(folder, tmp_path / "sweep" / "models" / "trial-0001")
    assert apply.model_folder(tmp_path / "sweep").name == "trial-0001"
    with pytest.raises(UserError, match="was not kept"):
        apply.model_folder(tmp_path / "sweep", 2)
    with pytest.raises(UserError, match="--rank must be 1 to 2"):
        apply.model_folder(tmp_path / "sweep", 3)
    damaged = tmp_path / "sweep" / "models" / "trial-0001"
    (damaged / "config.json").write_text("{}")
    with pytest.raises(CorruptFile, match=r"config\.json"):
        apply.model_folder(damaged)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["ae", "sample"], "deterministic"),
        (["quadrants", "sample"], "inpaint"),
        (["vae", "sample", "--label", 1], "--label 1"),
        (["cvae", "sample", "--label", 10], "0 to 9, got 10"),
        (["vae", "reconstruct", "--out", "x.jpg"], ".png or .npz"),
        (["vae", "reconstruct", "--rank", 2], "only a sweep"),
        (["vae", "reconstruct", "--split", "train"], "validation, test"),
        (["whole", "reconstruct"], "--split test"),
        (["vae", "denoise", "--corruption", "blur"], "gaussian, masking, salt_and_pepper"),
        (["vae", "denoise", "--corruption", "masking", "--amount", 2], "got 2"),
        (["vae", "inpaint", "--mask", "middle"], "'middle'"),
        (["quadrants", "inpaint", "--mask", "top"], "no other mask"),
        (["vae", "interpolate", "--to", 287], "287"),
        (["vae", "traverse", "--dimension", 3], "0 to 2, got 3"),
        (["vae", "encode", "--by", "umap"], "dimensions, pca or tsne"),
        (["vae", "encode", "--out", "codes.csv"], ".parquet"),
        (["vae", "score", "--anomaly-label", 11], "both kinds"),
        (["vae", "score", "--against", "mnist", "--data-dir", "nowhere"], "nowhere"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else None,
)
def test_refusals(research, kept, tmp_path, arguments, words):
    """One line with value, rule or remedy, exit code 2, and no file."""
    name, verb, *options = arguments
    assert words in research(verb, kept(name), *options, code=2)
    assert list(tmp_path.iterdir()) == []


def test_tables_are_not_drawn(research, kept):
    """Pictures of a table are refused; its codes and scores are not."""
    data = ("--data-dir", kept("table").parent)
    for verb in ("reconstruct", "denoise", "inpaint", "interpolate", "traverse"):
        assert "no images" in research(verb, kept("table"), *data, code=2)
    assert "no images" in research("sample", kept("table"), code=2)
    research("encode", kept("table"), *data)
    research("score", kept("table"), "--anomaly-label", 0, *data, code=2)  # all of validation is
    research("compare", kept("table"), kept("table"), *data)


def test_masks_from_files(tmp_path):
    """White, or above half, is missing, in every channel; another size is refused."""
    values = np.zeros((8, 6), np.uint8)
    values[2:5, 1] = 255
    Image.fromarray(values).save(tmp_path / "m.png")
    np.save(tmp_path / "m.npy", values > 0)
    for name in ("m.png", "m.npy"):
        missing = apply.draw_mask(str(tmp_path / name), (2, 8, 6))
        assert np.array_equal(np.stack([values > 0] * 2), missing.view(2, 8, 6).numpy())
        with pytest.raises(UserError, match="8×8"):
            apply.draw_mask(str(tmp_path / name), (1, 8, 8))
    right = torch.zeros(1, 8, 7, dtype=torch.bool)
    right[:, :, 3:] = True
    assert torch.equal(right.flatten(), apply.draw_mask("right", (1, 8, 7)))


def test_the_card(kept):
    """A kept folder explains itself: name, data, numbers, pictures, how to use it and how to make it again."""
    folder = kept("other")
    assert "README.md" in verify_folder(folder)
    text = (folder / "README.md").read_text()
    record = load_record(folder)
    assert text.startswith("# β-VAE, β = 4\n")
    for word in ("digits", record.data_hash[:12], record.split_hash[:12], record.measure, "nats per example"):
        assert word in text
    assert f"{record.rows[0]['val/elbo']:.4f}" in text
    assert "](samples.png)" in text
    assert "research reproduce" in text
    assert "load_model" in text
    block = text.partition("```json\n")[2].partition("```")[0]
    assert record.config == json.loads(block)


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("vae", "# VAE\n"),
        ("cvae", "# Conditional VAE (label)\n"),
        ("quadrants", "# Conditional VAE (part of the image)\n"),
        ("ae", "# Autoencoder\n"),
    ],
)
def test_what_the_card_calls_it(kept, name, title):
    """The name of the family's member, and no picture that is not there."""
    record = load_record(kept(name))
    card = model_card(record.config, record.rows[-1], json.loads(record.to_json()), [])
    assert card.startswith(title)
    assert "![" not in card


def test_help_waits_for_nothing():
    """The verbs are listed without importing torch, numpy or pyarrow."""
    code = "import sys, research.cli.app; print({'torch', 'numpy', 'pyarrow', 'sklearn'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize("count", [2, 3, 7])
@pytest.mark.parametrize("how", ["dimensions", "pca", "tsne"])
def test_plane_of_few_examples_is_drawn(kept, monkeypatch, how, count):
    """A split of a few examples has a plane too: t-SNE's perplexity follows their number."""
    codes = (torch.randn(count, 3), torch.ones(count, 3), torch.zeros(count, dtype=torch.long))
    monkeypatch.setattr(apply, "some_codes", lambda *_: codes)
    flat, labels, _ = apply.plane(apply.open_model(kept("vae"), why="test"), how)
    assert (flat.shape, len(labels)) == ((count, 2), count)


def test_plane_of_equal_codes_is_refused(kept, monkeypatch):
    """A collapsed posterior gives one point, on which scikit-learn's t-SNE would crash the process."""
    codes = (torch.zeros(20, 3), torch.ones(20, 3), torch.zeros(20, dtype=torch.long))
    monkeypatch.setattr(apply, "some_codes", lambda *_: codes)
    with pytest.raises(UserError, match="codes that differ, and all 20 are equal"):
        apply.plane(apply.open_model(kept("vae"), why="test"), "tsne")


def test_check_plane_of_one_example_is_refused():
    """PCA and t-SNE need two."""
    apply.check_plane("dimensions", 1)
    for how in ("pca", "tsne"):
        with pytest.raises(UserError, match="needs at least 2 examples, and the split has 1"):
            apply.check_plane(how, 1)
