"""Which held-out examples stand for all: a fixed permutation, so that files sorted by label mislead nobody."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.affine import affine
from tests.support.small import digits, few_digits, held_out, small_config
from vae import seeds
from vae.apply import code_moments, codes, some_codes
from vae.conditioning import OnLabel
from vae.data import Arrays, Digits, clear_cache, load_training
from vae.data.dataset import make_split
from vae.data.pixels import Pixels, pixels_of
from vae.data.splits import subset
from vae.evaluate import blocks, held_out_metrics, importance_weighted_nll
from vae.measure import measure_of
from vae.optimizers import Adam
from vae.pictures import reconstructions, samples, traversals
from vae.train import build, train
from vae.train_config import Evaluation

CPU = torch.device("cpu")


def test_subset_is_the_start_of_one_permutation():
    """Smaller subsets are starts of larger ones; another seed and another split are another permutation."""
    whole = subset(50, 49, rule="permuted", seed=3, split="validation")

    assert sorted(whole.tolist() + [x for x in range(50) if x not in whole]) == list(range(50))
    assert whole.tolist() != list(range(49))
    for count in (0, 1, 7, 48):
        assert whole[:count].tolist() == subset(50, count, rule="permuted", seed=3, split="validation").tolist()
    assert whole.tolist() != subset(50, 49, rule="permuted", seed=4, split="validation").tolist()
    assert whole.tolist() != subset(50, 49, rule="permuted", seed=3, split="test").tolist()


@pytest.mark.parametrize("count", [50, 51, 10**9])
@pytest.mark.parametrize("rule", ["first", "permuted"])
def test_subset_that_covers_the_split_keeps_file_order(rule, count):
    """So that nothing changes where all examples are used."""
    assert subset(50, count, rule=rule, seed=3, split="validation").tolist() == list(range(50))


def test_subset_by_the_first_rule_is_the_first_in_file_order():
    """As version 0.1.0 took them."""
    assert subset(50, 7, rule="first", seed=3, split="validation").tolist() == list(range(7))


@pytest.mark.parametrize("rule", ["first", "permuted"])
def test_pixels_take_rule_and_seed_from_the_config(rule):
    """The rule is ``eval.subset``, the seed ``data.split_seed``."""
    config = small_config(data=Digits(split_seed=5), eval=Evaluation(subset=rule))

    expected = subset(40, 9, rule=rule, seed=5, split="validation")
    assert expected.tolist() == held_out(config, few_digits()).subset(9).tolist()


def test_pixels_of_external_data_without_a_split_seed_have_a_subset():
    """A set that brings its own validation split needs no seed of ours."""

    class Bare:
        kind, binarisation, dequantise = "bare", "none", False

    split = make_split("validation", torch.zeros((9, 1, 2, 2), dtype=torch.uint8), torch.zeros(9, dtype=torch.int64))
    pixels = Pixels(split, Bare(), levels=16, eval_seed=0, device=CPU, held_out=True)

    assert len(set(pixels.subset(5).tolist())) == 5


@torch.no_grad()
@pytest.mark.parametrize("marginal", [False, True])
@pytest.mark.parametrize("rule", ["first", "permuted"])
def test_importance_weighted_nll_is_of_the_subset(rule, marginal):
    """The examples are those of the rule, in its order; the noise belongs to the place in that order."""
    config = small_config(conditioning=OnLabel(), eval=Evaluation(subset=rule))
    model, pixels = build(config, few_digits()), held_out(config, few_digits())
    asked = {"k": 6, "seed": 2, "split": "validation", "marginal": marginal}
    rows = pixels.subset(25)
    only = make_split("validation", pixels.split.images[rows], pixels.split.labels[rows])
    alone = pixels_of(only, config, 16, CPU, held_out=True)

    found = importance_weighted_nll(model, pixels, images=25, **asked)
    assert importance_weighted_nll(model, alone, images=25, **asked) == found
    assert found.images == 25


def reference_nll(model, pixels, *, k, images, seed):
    """−log p(x) as version 0.1.0 computed it, by slices in file order, without its faster decoder."""
    noise_of = seeds.generator(seed, "importance", "validation")
    found = []
    for rows in blocks(images, 20):
        posterior = model.encode(pixels.batch(rows), None)
        half = max(1, k // 2)
        noise = [
            torch.randn((n, rows.stop - rows.start, model.latent_size), generator=noise_of) for n in (half, k - half)
        ]
        z = posterior.sample(torch.cat(noise))
        weight = model.prior.log_density(z, None, model.encode_alone) - posterior.log_density(z)
        weight = weight.double() - model.nll(z, None, pixels.batch(rows)).double()
        found.append(torch.logsumexp(weight, 0) - np.log(k))
    return -torch.cat(found).mean().item()


@torch.no_grad()
@pytest.mark.parametrize(("rule", "images"), [("first", 25), ("first", 30), ("permuted", 30), ("permuted", 1000)])
def test_importance_weighted_nll_in_file_order_is_what_it_was(rule, images):
    """By the first rule, and by both where all are used, noise and examples are paired as in version 0.1.0."""
    exact = affine(error=1.0)
    exact.pixels.rule = rule

    found = importance_weighted_nll(exact.model, exact.pixels, k=8, images=images, seed=1, split="validation")
    expected = reference_nll(exact.model, exact.pixels, k=8, images=min(images, 30), seed=1)
    assert found.nll == pytest.approx(expected, rel=1e-6)


def sorted_by_label(data):
    """``data`` with its validation split in the order of labels, as image folders are."""
    order = data.validation.labels.argsort(stable=True)
    split = make_split("validation", data.validation.images[order], data.validation.labels[order])
    return dataclasses.replace(data, validation=split)


@pytest.fixture(scope="module")
def sorted_model():
    """A VAE of the digits, and its held-out examples sorted by label under both rules."""
    config = small_config(epochs=12, optimizer=Adam(lr=1e-2), data=Digits(validation=600))
    data = sorted_by_label(load_training(config.data, None))
    *_, last = train(config, data)
    first = dataclasses.replace(config, eval=Evaluation(subset="first"))
    return last.model, {name: held_out(each, data) for name, each in (("permuted", config), ("first", first))}


def test_estimate_on_100_of_sorted_examples_is_off_in_file_order_and_right_permuted(sorted_model):
    """The first 100 are zeros and ones; 100 of a permutation estimate the whole split to within their standard error.

    Over 30 permutations the errors, in standard errors, have a root mean square of about √(1 − 100/600) = 0.91.
    """
    model, pixels = sorted_model
    asked = {"k": 16, "seed": 0, "split": "validation"}
    whole = importance_weighted_nll(model, pixels["permuted"], images=600, **asked)
    first = importance_weighted_nll(model, pixels["first"], images=100, **asked)
    errors = []
    for seed in range(30):
        pixels["permuted"].split_seed = seed
        permuted = importance_weighted_nll(model, pixels["permuted"], images=100, **asked)
        errors.append((permuted.nll - whole.nll) / permuted.standard_error)

    assert abs(first.nll - whole.nll) > 3 * first.standard_error
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(0.91, abs=0.25)
    assert np.mean(errors) == pytest.approx(0.0, abs=3 * 0.91 / np.sqrt(30))
    assert len(set(pixels["first"].labels[pixels["first"].subset(100)].tolist())) == 2
    assert len(set(pixels["permuted"].labels[pixels["permuted"].subset(100)].tolist())) == 10


def test_rows_of_a_run_use_the_rule_of_its_config():
    """``val/nll_iwae`` changes with the rule where fewer than all are taken, and with nothing else of the row."""
    data = sorted_by_label(few_digits())
    config = small_config(epochs=1)
    rows = {}
    for rule in ("first", "permuted"):
        for images in (10, 40):
            settings = Evaluation(nll_k=4, nll_images=images, subset=rule)
            *_, last = train(dataclasses.replace(config, eval=settings), data)
            rows[rule, images] = {name: v for name, v in last.row.items() if not name.startswith("time/")}

    assert rows["permuted", 40] == rows["first", 40]
    assert rows["permuted", 10].keys() == rows["first", 10].keys()
    different = {name for name, v in rows["first", 10].items() if rows["permuted", 10][name] != v}
    assert different == {"val/nll_iwae", "val/nll_iwae_standard_error", "val/nll_iwae_change_from_half_k"}


def test_held_out_metrics_over_all_are_bit_for_bit_the_same_by_both_rules():
    """Nothing but a smaller number of examples makes a difference."""
    found = []
    for rule in ("first", "permuted"):
        config = small_config(eval=Evaluation(nll_k=4, subset=rule))
        measure = measure_of(config, few_digits().validation, levels=16)
        found.append(
            held_out_metrics(build(config, few_digits()), held_out(config, few_digits()), config.eval, measure)
        )

    assert found[0] == found[1]


def shown(png):
    """The picture as an array."""
    return np.array(Image.open(io.BytesIO(png)))


def test_pictures_are_of_the_subset():
    """Reconstructions and traversals under the rule are those of a split that holds only these examples, in order."""
    for rule in ("first", "permuted"):
        config = small_config(eval=Evaluation(subset=rule))
        data = sorted_by_label(few_digits())
        model, pixels = build(config, data), held_out(config, data)
        rows = pixels.subset(16)
        only = make_split("validation", data.validation.images[rows], data.validation.labels[rows])
        alone = pixels_of(only, config, 16, CPU, held_out=True)

        assert np.array_equal(shown(reconstructions(model, alone)), shown(reconstructions(model, pixels, count=16)))
    # The example whose code is moved: of a split of one, it is that one.
    moved = shown(traversals(model, pixels))
    assert moved.shape == shown(traversals(model, alone)).shape


def test_samples_given_a_part_are_given_that_of_the_subset():
    """A model that is told a quadrant shows those of eight examples of several classes."""
    from vae.conditioning import OnQuadrants

    config = small_config(conditioning=OnQuadrants())
    data = sorted_by_label(few_digits())
    model, pixels = build(config, data), held_out(config, data)
    rows = pixels.subset(8)
    only = make_split("validation", data.validation.images[rows], data.validation.labels[rows])
    alone = pixels_of(only, config, 16, CPU, held_out=True)

    assert np.array_equal(shown(samples(model, seed=0, given=alone)), shown(samples(model, seed=0, given=pixels)))
    assert len(set(pixels.labels[rows].tolist())) > 2


def test_some_codes_are_those_of_the_subset(monkeypatch):
    """The codes that stand for all, in batches or not, are the encoder's at the subset's examples."""
    config = small_config()
    data = sorted_by_label(few_digits())
    model, pixels = build(config, data), held_out(config, data)
    everything = torch.cat([mean for mean, _, _ in codes(model, pixels)])
    rows = pixels.subset(23)

    for batch in (1000, 5):
        monkeypatch.setattr("vae.apply.BATCH", batch)
        mean, variance, labels = some_codes(model, pixels, 23)
        torch.testing.assert_close(everything[rows], mean)
        assert variance.shape == mean.shape
        assert pixels.labels[rows].tolist() == labels.tolist()
    monkeypatch.setattr("vae.apply.BATCH", 23)
    torch.testing.assert_close(everything[rows].mean(0), code_moments(model, pixels)[0])


def test_subset_of_a_mapped_set_is_that_of_the_same_set_in_memory(tmp_path, monkeypatch):
    """Where the examples lie changes neither which are taken nor what they are."""
    values = np.random.default_rng(0).integers(0, 256, (300, 3, 4), dtype=np.uint8)
    np.save(tmp_path / "v.npy", values)
    found = []
    for limit in (10**9, 10):
        monkeypatch.setattr("vae.data.arrays.MEMORY_LIMIT", limit)
        clear_cache()
        data = load_training(Arrays(path="v.npy", validation=120, split_seed=4), tmp_path)
        pixels = Pixels(
            data.validation, Arrays(path="v.npy", split_seed=4), levels=255, eval_seed=0, device=CPU, held_out=True
        )
        found.append((data.validation.index is None, pixels.subset(50), pixels.batch(pixels.subset(50))))
    clear_cache()

    assert [inside for inside, _, _ in found] == [True, False]
    assert torch.equal(found[0][1], found[1][1])
    assert torch.equal(found[0][2], found[1][2])


def test_digits_readme_figures_use_all_of_the_split():
    """The README's 287 images are all of the digits' validation split, so its figures don't depend on the rule."""
    assert len(digits().validation) <= Evaluation().nll_images
