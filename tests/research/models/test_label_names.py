"""Models of data whose labels have names, whose values leave [0, 1], or whose test part can't be scored."""

from __future__ import annotations

import json
import re
import sys

import numpy as np
import pytest
from PIL import Image
from pyarrow import parquet

from research.cli import app as cli
from research.errors import UserError
from research.ledger.records import load_record
from research.models.anomalies import anomalies
from research.models.apply import draw_mask
from tests.support.resealed import reseal
from vae.data import Arrays, load_test, load_training
from vae.serialization import to_dict
from vae.train_config import TrainConfig


@pytest.fixture
def research(capsys, monkeypatch, tmp_path):
    """Run a verb in ``tmp_path``; what it prints, to stderr where the exit code is 2."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("research.cli.models.set_threads", lambda _: None)
    monkeypatch.setattr("research.cli.runs.set_threads", lambda _: None)

    def run(*arguments, code=0):
        monkeypatch.setattr(sys, "argv", ["research", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        captured = capsys.readouterr()
        assert stopped.value.code == code, captured.err
        if code == 2:
            assert captured.err.count("\n") == 1
            return captured.err
        return captured.out

    return run


def write_table(path, names, dimensions=4):
    """A table of 400 rows, one in five of the first name, which lie elsewhere."""
    drawn = np.random.default_rng(0)
    odd = np.arange(400) % 5 == 0
    values = drawn.normal(size=(400, dimensions)) + 6.0 * odd[:, None]
    np.savez(path, x=values.astype(np.float32), y=np.where(odd, names[0], names[1]))


def write_config(file, **data):
    """A small config on these data."""
    config = {
        "data": {"kind": "arrays", **data},
        "likelihood": {"kind": "gaussian"},
        "network": {"kind": "mlp", "hidden": [8]},
        "latent_size": 2,
        "epochs": 2,
    }
    file.write_text(json.dumps(config))
    return config


@pytest.fixture
def named(research, tmp_path):
    """A model of data whose anomalies are called "anomaly", which comes before "normal"."""
    write_table(tmp_path / "a.npz", ("anomaly", "normal"))
    write_config(tmp_path / "a.json", path="a.npz", labels="y", scaling="standardise")
    research("train", "a.json", "--out", "m")
    return tmp_path / "m"


def test_score_of_two_names_needs_the_anomalous_one(research, named):
    """Which of two names is anomalous is not guessed; with the name the anomalies are found."""
    told = research("score", "m", code=2)
    assert "the labels are 'anomaly' and 'normal': say which is anomalous, e.g. --anomaly-label anomaly" in told
    found = json.loads(research("score", "m", "--anomaly-label", "anomaly", "--json"))
    assert found["of_label"] == ["anomaly"]
    assert found["auroc_by_negative_elbo"] > 0.9
    other = json.loads(research("score", "m", "--anomaly-label", "normal", "--json"))
    assert other["auroc_by_negative_elbo"] == pytest.approx(1 - found["auroc_by_negative_elbo"])
    assert "'bird' is no label of the data: it must be one of 'anomaly', 'normal'" in research(
        "score", "m", "--anomaly-label", "bird", code=2
    )


def test_a_refused_score_is_no_look_at_test(research, named):
    """The question is refused before the test split is looked at."""
    research("score", "m", "--split", "test", code=2)
    assert not (named / "looks").exists()


def test_names_are_kept_in_record_card_and_tables(research, named):
    """The record has the names, the card shows them, and tables have a column of them."""
    assert load_record(named).label_names == ("anomaly", "normal")
    assert 'Labels: 0 `"anomaly"`, 1 `"normal"`.' in (named / "README.md").read_text()
    research("encode", "m", "--out", "codes.parquet", "--picture", "codes.png")
    research("score", "m", "--anomaly-label", "anomaly", "--out", "scores.parquet")
    for file in ("codes.parquet", "scores.parquet"):
        table = parquet.read_table(named.parent / file)
        names = ["anomaly", "normal"]
        assert table["label_name"].to_pylist() == [names[label] for label in table["label"].to_pylist()]


def test_sample_accepts_a_name(research, tmp_path):
    """``--label`` is a name or a number, and the rows are called by their names."""
    write_table(tmp_path / "a.npz", ("cat", "a/dog"))
    config = write_config(tmp_path / "a.json", path="a.npz", labels="y", scaling="standardise")
    (tmp_path / "a.json").write_text(json.dumps(config | {"conditioning": {"kind": "label"}}))
    research("train", "a.json", "--out", "m")
    research("sample", "m", "--out", "all.npz")
    assert sorted(np.load(tmp_path / "all.npz").files) == ["label_a_dog", "label_cat"]
    research("sample", "m", "--label", "cat", "--out", "cat.npz", "--count", 3)
    research("sample", "m", "--label", "1", "--out", "one.npz", "--count", 3)
    cat, one = np.load(tmp_path / "cat.npz"), np.load(tmp_path / "one.npz")
    assert cat.files == one.files == ["label_cat"]
    assert np.array_equal(cat["label_cat"], one["label_cat"])
    assert "'cow' is no label of the data" in research("sample", "m", "--label", "cow", "--out", "x.npz", code=2)


def test_other_names_in_the_files_are_refused(research, named):
    """A model whose labels' numbers would mean other names is not used."""
    write_table(named.parent / "a.npz", ("zebra", "ape"))
    for verb in (("score", "m", "--anomaly-label", "ape"), ("evaluate", "m")):
        assert "'anomaly', 'normal' -> 'ape', 'zebra'" in research(*verb, code=2)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([0, 1], [1]),
        ([False, True], [1]),
        (["False", "True"], [1]),
        (["0", "1"], [1]),
        ([1, 2], []),
        ([0, 1, 2], []),
        (["a", "b", "c"], []),
        (["a"], []),
    ],
    ids=str,
)
def test_anomalies_of_labels_without_an_option(tmp_path, labels, expected):
    """1 of 0 and 1, and true of false and true, as before; of other labels none."""
    y = np.array(labels)[np.arange(60) % len(labels)]
    np.savez(tmp_path / "a.npz", x=np.random.default_rng(0).normal(size=(60, 2)), y=y)
    config = TrainConfig(data=Arrays(path="a.npz", labels="y"))
    data = load_training(config.data, tmp_path)
    assert anomalies(config, load_test(config.data, tmp_path), data.num_classes, None) == expected


def test_anomalies_are_all_labels_but_the_one_trained_on(tmp_path):
    """``train_label`` by name says which label is normal."""
    write_table(tmp_path / "a.npz", ("anomaly", "normal"))
    config = TrainConfig(data=Arrays(path="a.npz", labels="y", train_label="normal"))
    assert anomalies(config, load_test(config.data, tmp_path), 2, None) == [0]


def test_test_values_that_can_not_be_scored_are_refused_before_training(research, tmp_path):
    """``unit`` scaling of a test part that leaves [0, 1] is refused, without a value, a model or a look."""
    np.savez(tmp_path / "a.npz", x=np.random.default_rng(0).gamma(2.0, size=(400, 30)))
    config = write_config(tmp_path / "a.json", path="a.npz", scaling="unit")
    (tmp_path / "a.json").write_text(json.dumps(config | {"likelihood": {"kind": "continuous_bernoulli"}}))
    told = research("train", "a.json", "--out", "m", code=2)
    assert "the test part has values outside [0, 1]" in told
    assert "set data.scaling to 'unit'" not in told
    assert "'standardise'" in told
    assert re.findall(r"\d+\.\d+", told) == []
    assert not (tmp_path / "m").exists()
    config["data"]["test_fraction"] = 0.0  # who has no test part is not refused
    (tmp_path / "a.json").write_text(json.dumps(config | {"likelihood": {"kind": "continuous_bernoulli"}}))
    research("train", "a.json", "--out", "m")


def test_pictures_of_values_outside_0_1_are_scaled(research, tmp_path):
    """Images in −1..1 use all shades, and the picture says which values are black and white."""
    y, x = np.mgrid[0:16, 0:16]
    centre = np.random.default_rng(0).uniform(2, 14, (200, 2))
    blob = np.exp(-((y - centre[:, :1, None]) ** 2 + (x - centre[:, 1:, None]) ** 2) / 20)
    np.savez(tmp_path / "a.npz", x=(2 * blob - 1).astype("f4"))
    np.savez(tmp_path / "b.npz", x=blob.astype("f4"))
    shades, heights = {}, {}
    for name in "ab":
        write_config(tmp_path / f"{name}.json", path=f"{name}.npz")
        research("train", f"{name}.json", "--out", name)
        with Image.open(tmp_path / name / "reconstructions.png") as opened:
            picture = np.asarray(opened)
        left, top = (8, 18) if name == "a" else (0, 0)  # margin and title
        shades[name] = picture[top + 1 : top + 33, left + 1 : left + 33].astype(int)  # the first original
        heights[name] = len(picture)
    assert shades["a"].std() > 20
    assert abs(shades["a"] - shades["b"]).max() <= 2
    assert heights["a"] == heights["b"] + 18


def test_what_is_left_out_is_said_before_training(research, tmp_path):
    """The index that pandas wrote is named on the screen."""
    import pandas as pd

    pd.DataFrame(np.random.default_rng(0).normal(size=(100, 3)), columns=list("abc")).to_csv(tmp_path / "a.csv")
    write_config(tmp_path / "a.json", path="a.csv")
    assert "note: a.csv: column 1, whole numbers without a name, is left out" in research(
        "train", "a.json", "--out", "m"
    )


def test_binomial_on_colour_images_is_warned_of(research, tmp_path):
    """A model that is worse than a uniform guess is named, with the likelihood to use."""
    drawn = np.random.default_rng(0).integers(0, 256, (120, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "a.npz", x=drawn)
    config = write_config(tmp_path / "a.json", path="a.npz")
    (tmp_path / "a.json").write_text(json.dumps(config | {"likelihood": {"kind": "binomial"}}))
    told = research("train", "a.json", "--out", "m")
    assert "warning: the model is worse than a uniform guess" in told
    assert "a guess that takes all values alike has 8.0" in told
    assert "use likelihood.kind 'discretised_logistic'" in told


def test_a_record_without_names_is_one_of_an_earlier_version(research, named):
    """A model of a version that kept no names is used as before, and its data are read as they were."""
    record = json.loads((named / "record.json").read_text())
    del record["label_names"], record["config"]["data"]["reading"]
    (named / "record.json").write_text(json.dumps(record))
    config = json.loads((named / "config.json").read_text())
    del config["data"]["reading"]
    (named / "config.json").write_text(json.dumps(config))
    reseal(named)
    found = json.loads(research("score", "m", "--anomaly-label", "0", "--json"))
    assert found["of_label"] == ["anomaly"]
    assert to_dict(TrainConfig(data=Arrays(path="a.npz")))["data"]["reading"] == 2


@pytest.mark.parametrize(
    ("mask", "told"),
    [
        (Image.new("I;16", (4, 4), 40_000), "not 8 bits"),
        (Image.new("I", (4, 4), 1), "not 8 bits"),
        (Image.new("F", (4, 4), 0.9), "not 8 bits"),
    ],
    ids=["16 bits", "32 bits", "floats"],
)
def test_a_mask_of_more_than_eight_bits_is_refused(tmp_path, mask, told):
    """Its values would be cut off at 255, and every grey would be white."""
    mask.save(tmp_path / "mask.tif")
    (tmp_path / "mask.tif").rename(tmp_path / "mask.png")
    with pytest.raises(UserError, match=told):
        draw_mask(str(tmp_path / "mask.png"), (1, 4, 4))


def test_a_mask_of_several_frames_is_refused(tmp_path):
    """A stack is no mask."""
    frames = [Image.new("L", (4, 4), shade) for shade in (0, 255)]
    frames[0].save(tmp_path / "mask.png", save_all=True, append_images=frames[1:])
    with pytest.raises(UserError, match="it holds 2 frames"):
        draw_mask(str(tmp_path / "mask.png"), (1, 4, 4))


@pytest.mark.parametrize(("alpha", "missing"), [(255, True), (0, False)])
def test_transparent_pixels_of_a_mask_are_black(tmp_path, alpha, missing):
    """White that nobody sees marks nothing as missing; an opaque alpha channel changes nothing."""
    Image.new("RGBA", (4, 4), (255, 255, 255, alpha)).save(tmp_path / "mask.png")
    assert draw_mask(str(tmp_path / "mask.png"), (1, 4, 4)).all().item() is missing
