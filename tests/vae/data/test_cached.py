"""Loaded sets are kept in memory, but never given for another set of the same relative name."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from vae.data import Arrays, ImageFolder, load_test, load_training


def write(file, value):
    """A table of 20 rows, each ``value``."""
    np.savez(file, x=np.full((20, 2), value, np.float32))


CONFIG = Arrays(path="a.npz")


def test_load_after_a_change_of_directory_gives_the_new_ones_file(tmp_path, monkeypatch):
    """The same relative name in another working directory is another set."""
    for value, folder in enumerate(("first", "second")):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "a.npz", value)
        monkeypatch.chdir(tmp_path / folder)
        assert load_training(CONFIG, tmp_path).train.images.unique().tolist() == [value]
        assert load_test(CONFIG, tmp_path).images.unique().tolist() == [value]


@pytest.mark.parametrize(
    "load", [lambda place: load_training(CONFIG, place).train, lambda place: load_test(CONFIG, place)]
)
def test_load_after_the_file_was_written_again_reads_it_again(tmp_path, load):
    """A file that changed between two calls is read again; one that did not is not."""
    write(tmp_path / "a.npz", 1)
    first = load(tmp_path)
    assert load(tmp_path).images.data_ptr() == first.images.data_ptr()
    (tmp_path / "a.npz").unlink()
    write(tmp_path / "a.npz", 2)
    assert load(tmp_path).images.unique().tolist() == [2]


def test_load_after_an_image_came_deep_inside_a_folder_reads_it(tmp_path):
    """The root itself does not change then."""
    for part in ("train", "test"):
        for kind in ("cat", "dog"):
            (tmp_path / "set" / part / kind).mkdir(parents=True)
            for number in range(20):
                Image.new("L", (8, 8), 10 * number).save(tmp_path / "set" / part / kind / f"{number}.png")
    config = ImageFolder(path="set", colour=False, validation=4)
    assert len(load_training(config, tmp_path).train) == 36
    Image.new("L", (8, 8), 255).save(tmp_path / "set" / "train" / "dog" / "more.png")
    assert len(load_training(config, tmp_path).train) == 37
