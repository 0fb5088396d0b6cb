"""An ablation: one thing at a time, the same seeds for all, and differences only where figures compare."""

from __future__ import annotations

import csv
import dataclasses
import io
import sys

import pytest
from scipy import stats

from research.cli import app as cli
from research.errors import CorruptFile, UserError
from research.experiments import ablation
from research.experiments.ablation import RunResult, ablation_seeds, finished, prepare, run_all
from research.experiments.ablation_table import (
    as_csv,
    as_latex,
    as_markdown,
    escape,
    mean_of,
    paired_difference,
    summarise,
)
from research.experiments.variants import FULL, change, default_variants, given_variants, read_subject
from research.ledger.records import load_record
from research.ledger.settings import Metric
from vae.config import ConfigError
from vae.corruption import Masking
from vae.networks import Mlp
from vae.objectives import Elbo, Reconstruction
from vae.optimizers import Cosine
from vae.posteriors import Deterministic, FullCovariance
from vae.serialization import config_hash, to_json
from vae.train_config import Initialisation, TrainConfig

TINY = TrainConfig(
    network=Mlp(hidden=(8,), dropout=0.2),
    latent_size=4,
    objective=Elbo(beta=2.0),
    schedule=Cosine(),
    initialisation=Initialisation(output_bias="data_mean"),
    ema_decay=0.9,
    batch_size=256,
    epochs=2,
)
BERNOULLI = "likelihood.kind=bernoulli; data.binarisation=dynamic"


def prepared(out, config=TINY, changes=("objective.beta=1",), metric=None, seeds=2):
    """An ablation of a small config, ready to run."""
    return prepare(
        given_variants(config, changes),
        config=config,
        metric=metric or Metric(),
        seeds=seeds,
        out=out,
        data_dir=None,
    )


def run(of):
    """Its results, and which runs were new."""
    new = []
    results = run_all(
        of, threads=1, device="cpu", on_run=lambda label, seed, _, fresh: new.append((label, seed)) if fresh else None
    )
    return results, new


def test_what_is_changed_by_default():
    """Each part that is not at its plainest, alone; the latent size both ways; nothing that is plain already."""
    variants, left_out = default_variants(TINY)
    assert [variant.label for variant in variants] == [
        "objective.beta=1.0",
        "network.dropout=0.0",
        "schedule.kind=constant",
        "initialisation.output_bias=default",
        "ema_decay=null",
        "latent_size=2",
        "latent_size=8",
    ]
    assert left_out == []
    assert variants[0].config == dataclasses.replace(TINY, objective=Elbo())
    assert variants[4].config == dataclasses.replace(TINY, ema_decay=None)
    plain, _ = default_variants(TrainConfig(latent_size=1))
    assert [variant.label for variant in plain] == ["latent_size=2"]
    # What the config does not accept is named: a code without a density has no ELBO.
    _, left_out = default_variants(TrainConfig(posterior=Deterministic(), objective=Reconstruction()))
    assert any(line.startswith("objective.kind=elbo: ") for line in left_out)


def test_changes_that_are_refused():
    """In one line, before anything trains."""
    for text, why in (
        ("objective.beta=2.0", "changes nothing"),
        ("beta", "must be PATH=VALUE"),
        ("seed=3", "seed can't be ablated"),
        ("eval.samples=3", "belongs to all rows"),
        ('eval={"samples": 3}', "belongs to all rows"),
        ('latent_size=3; eval={"seed": 3}', "belongs to all rows"),
    ):
        with pytest.raises(UserError, match=why):
            given_variants(TINY, [text])
    with pytest.raises(UserError, match=r"is the same as 'ema_decay=null'"):
        given_variants(TINY, ["ema_decay=null", " ema_decay=null"])
    with pytest.raises(ConfigError, match=r"--change 'objective\.betta=1': .*did you mean 'objective.beta'"):
        change(TINY, "objective.betta=1")
    with pytest.raises(ConfigError, match=r"needs data\.binarisation"):
        change(TINY, "likelihood.kind=bernoulli")
    assert change(TINY, BERNOULLI).likelihood.kind == "bernoulli"


def test_the_whole_of_it(tmp_path):
    """Paired seeds; a row of another measure and one that diverges are named; the second call trains nothing."""
    changes = ["objective.beta=1", BERNOULLI, "optimizer.lr=1e9"]
    of = prepared(tmp_path / "out", changes=changes)
    results, new = run(of)
    assert len(new) == 8
    again, new = run(prepared(tmp_path / "out", changes=changes))
    assert new == []
    assert again == results
    # A row more trains that row alone.
    _, new = run(prepared(tmp_path / "out", changes=[*changes, "latent_size=2"]))
    assert [label for label, _ in new] == ["latent_size=2"] * 2

    assert of.seeds == ablation_seeds(TINY, 2)
    assert TINY.seed not in of.seeds
    full, beta, bernoulli, diverged = summarise(of, results)
    by_hand = [
        max(row["val/elbo"] for row in load_record(tmp_path / "out" / name / f"seed-{seed}").rows)
        for name in ("full_config-" + of.variants[0].folder[-6:], "objective.beta=1")
        for seed in of.seeds
    ]
    assert full.figures["val/elbo"] == mean_of(by_hand[:2])
    assert beta.difference == paired_difference(by_hand[2:], by_hand[:2])
    assert beta.incomparable is None
    assert full.difference is None
    assert bernoulli.difference is None
    assert "binary(seed=0)" in bernoulli.incomparable
    assert bernoulli.figures["val/kl"].count == 2
    assert diverged.figures == {}
    assert diverged.difference is None
    assert set(diverged.failed) == set(of.seeds)
    assert all("at step" in why for why in diverged.failed.values())

    markdown = as_markdown(of, [full, beta, bernoulli, diverged])
    assert markdown.count("not comparable") == 2
    assert "| `optimizer.lr=1e9` | - | - | - | - | 0/2 |" in markdown
    assert of.measure in markdown
    table = list(csv.DictReader(io.StringIO(as_csv(of, [full, beta, bernoulli, diverged]))))
    assert float(table[1]["difference"]) == beta.difference.mean
    assert float(table[1]["val/elbo_standard_error"]) == beta.figures["val/elbo"].error
    assert table[2]["difference"] == table[3]["val/kl"] == ""
    latex = as_latex(of, [full, beta, bernoulli, diverged])
    assert r"\texttt{optimizer.lr=1e9}" in latex
    assert latex.index(r"\toprule") < latex.index(r"\midrule") < latex.index(r"\bottomrule")
    rows = [line for line in latex.splitlines() if line.endswith(r"\\")]
    assert {line.count(" & ") for line in rows} == {5}


def test_the_interval_is_students(tmp_path):
    """That of scipy's paired test, over the seeds that both have."""
    full, own = [1.0, 2.5, 4.0, None, 3.0], [1.5, 2.0, 5.5, 9.0, None]
    found = paired_difference(own, full)
    interval = stats.ttest_rel(own[:3], full[:3]).confidence_interval(0.95)
    assert found.pairs == 3
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert paired_difference([1.0], [3.0]) == paired_difference([1.0, None], [3.0, 2.0])
    assert paired_difference([1.0], [3.0]).low is None
    assert paired_difference([None], [3.0]) is None
    assert mean_of([1.0, 2.0, 4.0]).error == pytest.approx(stats.sem([1.0, 2.0, 4.0]))


def test_figures_that_do_not_compare(tmp_path):
    """The rules of a sweep: bounds of other posteriors, a metric that is not reported, one that a change drives."""

    def why(changes, config=TINY, metric="val/elbo", direction="maximize"):
        of = prepared(tmp_path / "x", config, changes, Metric(name=metric, direction=direction))
        return of.variants[1].incomparable

    assert "misorders" in why(["posterior.kind=full_covariance"])
    assert "misorders" in why(["posterior.kind=diagonal"], dataclasses.replace(TINY, posterior=FullCovariance()))
    assert "does not exist" in why(["posterior.kind=deterministic; objective.kind=reconstruction"])
    assert "objective.beta is swept" in why(["objective.beta=1"], metric="val/kl", direction="minimize")
    noisy = dataclasses.replace(TINY, corruption=Masking())
    assert "varies corruption" in why(["corruption.kind=none"], noisy, "val/denoise_error", "minimize")
    assert "measure" in why(["data.split_seed=1"])
    assert why(["latent_size=2"]) is None
    assert not (tmp_path / "x").exists()


def test_a_folder_of_something_else(tmp_path, monkeypatch):
    """A run of another config, of other code, or a damaged one is refused before anything trains."""
    of = prepared(tmp_path / "out", seeds=1)
    run(of)
    longer = dataclasses.replace(TINY, latent_size=5)
    with pytest.raises(UserError, match="choose another --out"):
        prepared(tmp_path / "out", longer, seeds=1)
    with monkeypatch.context() as patched:
        patched.setattr(ablation.provenance, "source_sha256", lambda: "0ther" * 12)
        with pytest.raises(UserError, match="trained by other code"):
            prepared(tmp_path / "out", seeds=1)
    assert finished(of, of.variants[0], of.seeds[0]).row["epoch"] in {1, 2}
    weights = tmp_path / "out" / "objective.beta=1" / f"seed-{of.seeds[0]}" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(CorruptFile, match=r"model\.safetensors"):
        prepared(tmp_path / "out", seeds=1)


def test_runs_with_another_rule_for_subsets_are_refused(tmp_path):
    """The hash of a config leaves ``eval.subset`` out, and figures of the two rules do not compare."""
    run(prepared(tmp_path / "out", seeds=1))
    other = dataclasses.replace(TINY, eval=dataclasses.replace(TINY.eval, subset="first"))
    assert config_hash(other) == config_hash(TINY)
    with pytest.raises(UserError, match=r"subset='permuted'.*subset='first'.*--out"):
        prepared(tmp_path / "out", seeds=1, config=other)


def test_a_run_that_raises_does_not_end_it(tmp_path, monkeypatch):
    """It is named, and tried again the next time."""
    of = prepared(tmp_path / "out", seeds=1)
    train_once = ablation.train_once

    def raising(config, **options):
        if config.objective.beta == 1:
            raise MemoryError("no room")
        return train_once(config, **options)

    monkeypatch.setattr(ablation, "train_once", raising)
    (full,), (failed,) = run(of)[0]
    assert full.failed is None
    assert failed == RunResult(None, "MemoryError: no room")
    assert "0/1" in as_markdown(of, summarise(of, [[full], [failed]]))
    monkeypatch.setattr(ablation, "train_once", train_once)
    assert run(of)[1] == [("objective.beta=1", of.seeds[0])]


def test_where_the_config_comes_from(tmp_path):
    """A config.json, and a run's own record, its metric and its data's hash with it."""
    (tmp_path / "config.json").write_text(to_json(TINY))
    subject = read_subject(tmp_path / "config.json", 1)
    assert (subject.config, subject.metric.name, subject.data_hash) == (TINY, "val/elbo", None)
    of = prepared(tmp_path / "out", seeds=1, changes=())
    run(of)
    folder = next((tmp_path / "out").glob("full*")) / f"seed-{of.seeds[0]}"
    for place in (folder, folder / "record.json"):
        subject = read_subject(place, 1)
        assert config_hash(subject.config) == config_hash(dataclasses.replace(TINY, seed=of.seeds[0]))
        assert subject.data_hash is not None
    with pytest.raises(UserError, match="only a sweep directory has ranks"):
        read_subject(tmp_path / "config.json", 2)
    with pytest.raises(UserError, match=r"holds no record\.json"):
        read_subject(tmp_path, 1)
    other = read_subject(folder, 1)
    with pytest.raises(UserError, match="the data are not the record's"):
        prepare([], config=other.config, metric=Metric(), seeds=1, out=tmp_path / "y", data_dir=None, data_hash="feed")


def test_escaping():
    """Every character that LaTeX reads as its own."""
    assert escape(r"a_b & 5% of \x{#} ~^$") == (
        r"a\_b \& 5\% of \textbackslash{}x\{\#\} \textasciitilde{}\textasciicircum{}\$"
    )


def test_folders_are_plain_and_different():
    """A label's folder is a plain name, and no two labels share one."""
    variants = given_variants(TINY, ["latent_size=2", "network.hidden=[8,8]", "network.hidden=[8,9]"])
    names = [variant.folder for variant in variants]
    assert len(set(names)) == 3
    assert names[0] == "latent_size=2"
    assert all("/" not in name and "[" not in name for name in names)


def research(capsys, monkeypatch, *arguments):
    """Exit code, stdout and stderr of ``research``."""
    monkeypatch.setattr(sys, "argv", ["research", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    captured = capsys.readouterr()
    return stopped.value.code, captured.out, captured.err


def test_from_the_command_line(tmp_path, capsys, monkeypatch):
    """The table alone is on stdout; refusals are one line; an interruption continues."""
    (tmp_path / "config.json").write_text(to_json(TINY))
    command = ["ablate", tmp_path / "config.json", "--seeds", "1", "--epochs", "1", "--out", tmp_path / "out"]
    code, out, err = research(capsys, monkeypatch, *command, "--change", "seed=1")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert not (tmp_path / "out").exists()
    code, _, err = research(capsys, monkeypatch, *command, "--format", "html")
    assert code == 2
    assert "--format must be one of markdown, latex, csv" in err

    with monkeypatch.context() as patched:
        patched.setattr(ablation, "_train", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        code, out, err = research(capsys, monkeypatch, *command, "--change", "objective.beta=1")
    assert (code, out) == (130, "")
    assert "the same command continues" in err

    code, out, err = research(capsys, monkeypatch, *command, "--change", "objective.beta=1", "--format", "csv")
    assert code == 0
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["change"] for row in rows] == [FULL, "objective.beta=1"]
    assert "2/2  objective.beta=1" in err
