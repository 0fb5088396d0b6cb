"""Sets larger than memory: they stay on disk, and everything is as if they didn't."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from vae.data import Arrays, DataError, ImageFolder, clear_cache, load_test, load_training
from vae.data.dataset import BLOCK, content_digest
from vae.data.pixels import Pixels

CPU = torch.device("cpu")
BYTES = np.random.default_rng(0).integers(0, 256, (BLOCK + 900, 3, 4), dtype=np.uint8)  # more than one block
WHOLE = Arrays(path="v.npy", labels="l.npy", validation=700)


def load(config, folder):
    """Training, validation and test, read anew."""
    clear_cache()
    data, test = load_training(config, folder), load_test(config, folder)
    return data, [data.train, data.validation, test]


def is_file(tensor, path):
    """Whether the memory under ``tensor`` is ``path``, mapped; as the operating system says."""
    if not sys.platform.startswith("linux"):
        pytest.skip("only Linux says what memory is mapped from")
    address = tensor.data_ptr()
    for line in Path("/proc/self/maps").read_text().splitlines():
        ends, *_, last = line.split(maxsplit=5)
        first, end = (int(number, 16) for number in ends.split("-"))
        if first <= address < end:
            return last == str(path)
    return False


@pytest.fixture
def folder(tmp_path):
    """An .npy of bytes and one of labels."""
    np.save(tmp_path / "v.npy", BYTES)
    np.save(tmp_path / "l.npy", np.arange(len(BYTES)) % 3)
    return tmp_path


@pytest.fixture
def both(folder, monkeypatch):
    """The same set in memory and mapped: (data, splits) of each."""
    inside = load(WHOLE, folder)
    monkeypatch.setattr("vae.data.arrays.MEMORY_LIMIT", 1000)
    return inside, load(WHOLE, folder)


def test_a_large_array_is_mapped_and_not_copied(both, folder):
    """All splits are views of the one file; in memory none is."""
    (_, inside), (_, mapped) = both
    assert all(is_file(split.images, folder / "v.npy") for split in mapped)
    assert not any(is_file(split.images, folder / "v.npy") for split in inside)
    assert mapped[0].images.data_ptr() == mapped[1].images.data_ptr()


def test_mapped_or_not_the_set_is_the_same(both):
    """The same examples, labels, shapes and hashes: a record does not depend on the machine's memory."""
    (data, inside), (large, mapped) = both
    assert (data.data_hash, data.split_hash) == (large.data_hash, large.split_hash)
    for ours, theirs in zip(inside, mapped, strict=True):
        assert ours.digest == theirs.digest == content_digest(ours.images, ours.labels)
        assert ours.shape == theirs.shape == (1, 3, 4)
        assert torch.equal(ours.labels, theirs.labels)
        assert len(ours) == len(theirs) == len(ours.images)
        for index in (slice(None), slice(3, 9), torch.tensor([5, 0, 5])):
            assert torch.equal(ours.rows(index), theirs.rows(index))
            assert torch.equal(ours.rows(index), ours.images[index])


def test_one_label_of_a_mapped_set(folder, monkeypatch):
    """Training on one label alone works on disk as in memory."""
    config = dataclasses.replace(WHOLE, train_label=1)
    inside, _ = load(config, folder)
    monkeypatch.setattr("vae.data.arrays.MEMORY_LIMIT", 1000)
    data, splits = load(config, folder)
    assert set(data.train.labels.tolist()) == {1}
    assert set(splits[2].labels.tolist()) == {0, 1, 2}
    assert data.data_hash == inside.data_hash
    assert is_file(data.train.images, folder / "v.npy")


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_channels_last_is_mapped_too(tmp_path, monkeypatch, dtype):
    """Axes that are in another order on disk are so in a view, not in a copy, and hash alike."""
    np.save(tmp_path / "v.npy", np.random.default_rng(0).integers(0, 9, (50, 5, 4, 3)).astype(dtype))
    config = Arrays(path="v.npy", validation=5)
    inside, ours = load(config, tmp_path)
    monkeypatch.setattr("vae.data.arrays.MEMORY_LIMIT", 1000)
    data, theirs = load(config, tmp_path)
    assert (data.data_hash, data.shape) == (inside.data_hash, (3, 5, 4))
    assert [split.digest for split in ours] == [split.digest for split in theirs]
    assert is_file(data.train.images, tmp_path / "v.npy")


@pytest.mark.parametrize(
    ("fields", "dtype", "told"),
    [
        ({"scaling": "unit"}, np.float32, r"v\.npy is larger than 1,000 bytes and stays on disk.*got 'unit'"),
        ({}, np.float64, r"v\.npy is larger than 1,000 bytes and stays on disk: store uint8 or float32, got float64"),
        ({"levels": 255}, np.float32, r"must be uint8, got torch\.float32"),
    ],
    ids=str,
)
def test_what_would_need_a_copy_is_refused(tmp_path, monkeypatch, fields, dtype, told):
    """Scaling and conversions are for what fits in memory."""
    monkeypatch.setattr("vae.data.arrays.MEMORY_LIMIT", 1000)
    np.save(tmp_path / "v.npy", BYTES.astype(dtype))
    with pytest.raises(DataError, match=told):
        load_training(Arrays(path="v.npy", **fields), tmp_path)


def test_nan_is_found_on_disk(tmp_path, monkeypatch):
    """A NaN beyond the first block is found, and its row is that of the file."""
    monkeypatch.setattr("vae.data.arrays.MEMORY_LIMIT", 1000)
    values = BYTES.astype(np.float32)
    values[BLOCK + 5, 1, 2] = np.nan
    np.save(tmp_path / "v.npy", values)
    with pytest.raises(DataError, match=rf"v\.npy: row {BLOCK + 5}, column 6 is nan"):
        load_training(Arrays(path="v.npy"), tmp_path)


def test_decoded_images_are_mapped(tmp_path, monkeypatch):
    """Images that don't fit in memory are decoded to disk and mapped from there."""
    from PIL import Image

    monkeypatch.setattr("vae.data.image_files.MEMORY_LIMIT", 1000)
    for place in range(30):
        (tmp_path / "f").mkdir(exist_ok=True)
        Image.fromarray(BYTES[place * 4 : place * 4 + 4].reshape(8, 6)).save(tmp_path / "f" / f"{place:02}.png")
    config = ImageFolder(path="f", colour=False, test_fraction=0, validation=5)
    clear_cache()
    data = load_training(config, tmp_path)
    (copy,) = (tmp_path / ".decoded").iterdir()
    assert is_file(data.train.images, copy)
    assert data.data_hash == content_digest(torch.from_numpy(BYTES[:120].reshape(30, 1, 8, 6)), torch.zeros(30).long())


# What a model sees of them.


def seen(splits, part, *, held_out, seed=0, **how):
    """The pixels of one of three splits as a config with this binarisation has them."""
    config = dataclasses.replace(WHOLE, **how)
    return Pixels(splits[part], config, levels=255, eval_seed=seed, device=CPU, held_out=held_out)


@pytest.mark.parametrize("how", [{}, {"binarisation": "expected"}], ids=str)
def test_untouched_pixels_are_those_in_memory(both, how):
    """Batches and means are bit for bit what they are in memory."""
    (_, inside), (_, mapped) = both
    ours, theirs = (seen(splits, 0, held_out=False, **how) for splits in (inside, mapped))
    index = torch.tensor([3, 1, 3])
    assert torch.equal(ours.batch(index), theirs.batch(index))
    assert torch.equal(ours.batch(slice(5, 700)), theirs.batch(slice(5, 700)))
    assert torch.equal(ours.mean(), theirs.mean())
    assert torch.equal(ours.labels, theirs.labels)
    assert theirs.rows is None


@pytest.mark.parametrize("how", [{"binarisation": "dynamic"}, {"dequantise": True}], ids=str)
def test_draws_in_training_are_those_in_memory(both, how):
    """What is drawn anew takes the same draws from torch's generator."""
    (_, inside), (_, mapped) = both
    x = []
    for splits in (inside, mapped):
        torch.manual_seed(3)
        x.append(seen(splits, 0, held_out=False, **how).batch(slice(0, 50)))
    assert torch.equal(*x)


@pytest.mark.parametrize(
    ("how", "held_out"),
    [({"binarisation": "static"}, False), ({"binarisation": "static"}, True), ({"dequantise": True}, True)],
    ids=str,
)
def test_fixed_draws_are_fixed(both, how, held_out):
    """A row has the same draws in whatever batch it comes, and others under another seed and in another split."""
    _, (_, mapped) = both
    pixels = seen(mapped, 1, held_out=held_out, **how)
    whole = pixels.batch(slice(None))
    index = torch.tensor([699, 2, 2, 300])
    torch.manual_seed(5)
    assert torch.equal(pixels.batch(index), whole[index])
    assert torch.equal(seen(mapped, 1, held_out=held_out, **how).batch(slice(2, 9)), whole[2:9])
    assert not torch.equal(seen(mapped, 1, held_out=held_out, seed=1, **how).batch(slice(None)), whole)


def test_fixed_draws_are_uniform_and_independent(both):
    """Held-out draws are uniform, by moments to 5 standard errors, and no row's are another's."""
    _, (_, mapped) = both
    pixels = seen(mapped, 0, held_out=True, dequantise=True)
    u = pixels.uniform.of(slice(None)).double()
    assert abs(u.mean() - 1 / 2) < 5 * (1 / 12 / u.numel()) ** 0.5
    assert abs((u**2).mean() - 1 / 3) < 5 * (4 / 45 / u.numel()) ** 0.5
    assert abs(((u[:-1] - 0.5) * (u[1:] - 0.5)).mean() * 12) < 5 / u[1:].numel() ** 0.5
    assert len(u.unique()) > 0.99 * u.numel()  # of 2^24 values, 40,000 draws take hardly any twice
    expected = (mapped[0].rows(slice(None)).flatten(1) + u.float()) / 256
    assert torch.equal(pixels.batch(slice(None)), expected)


def test_binarised_as_often_as_grey(both):
    """P(1) = k / 255 over all pixels, and static and dynamic hold out the same draw."""
    _, (_, mapped) = both
    static, dynamic = (seen(mapped, 1, held_out=True, binarisation=b).batch(slice(None)) for b in ("static", "dynamic"))
    assert torch.equal(static, dynamic)
    assert set(static.unique().tolist()) == {0.0, 1.0}
    grey = mapped[1].rows(slice(None)).flatten(1).double() / 255
    z = (static - grey).sum() / (grey * (1 - grey)).sum().sqrt()
    assert abs(z) < 5
    assert (static[grey == 0] == 0).all()
    assert (static[grey == 1] == 1).all()
