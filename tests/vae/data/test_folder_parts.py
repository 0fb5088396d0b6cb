"""Folders of images: labels in natural order, parts in every spelling, transparency and frames."""

from __future__ import annotations

import random

import numpy as np
import pytest
from PIL import Image, ImageDraw

from vae.data import DataError, ImageFolder, load_test, load_training
from vae.data.folder_parts import part_called


def fill(root, folders, each=6):
    """Write ``each`` grey images of their own into every folder."""
    drawn = random.Random(str(folders))
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
        for n in range(each):
            Image.frombytes("L", (8, 8), drawn.randbytes(64)).save(root / folder / f"{n}.png")
    return root


def folder_set(**fields):
    """The set in the folder ``f``."""
    return ImageFolder(path="f", **{"colour": False, **fields})


def test_folders_are_numbered_in_natural_order(tmp_path):
    """Folders 1 to 12: label 10 is folder 11, label 1 is folder 2."""
    fill(tmp_path / "f", [str(n) for n in range(1, 13)], each=1)
    data = load_training(folder_set(validation=0, test_fraction=0), tmp_path)
    assert data.label_names == tuple(str(n) for n in range(1, 13))
    order = sorted(map(str, range(1, 13)))  # files come in the order of their text
    assert data.train.labels.tolist() == [int(name) - 1 for name in order]


def test_folders_of_an_earlier_record_are_numbered_by_their_text(tmp_path):
    """``reading`` 1 is the order of version 0.1.0."""
    fill(tmp_path / "f", [str(n) for n in range(1, 13)], each=1)
    data = load_training(folder_set(validation=0, test_fraction=0, reading=1), tmp_path)
    assert data.train.labels.tolist() == list(range(12))


def test_folders_0_to_9_have_no_names_but_their_numbers(tmp_path):
    """A folder that is called by its number needs no name."""
    fill(tmp_path / "f", [str(n) for n in range(10)], each=1)
    data = load_training(folder_set(validation=0, test_fraction=0), tmp_path)
    assert (data.label_names, data.num_classes) == ((), 10)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        *[(name, "train") for name in ("train", "Train", "TRAIN", "training", "train_set", "training-set", "trainset")],
        *[
            (name, "train")
            for name in ("train2017", "images_train", "seg_train", "Train Images", "trainA", "traindata")
        ],
        *[(name, "validation") for name in ("val", "valid", "validation", "dev", "Val", "VALID", "val_images", "eval")],
        *[(name, "test") for name in ("test", "testing", "Test", "TEST_SET", "testset", "test2", "holdout")],
        *[(name, None) for name in ("cat", "trainer", "contest", "value", "device", "valley", "12", "train_test", "")],
    ],
)
def test_part_called_knows_every_spelling(name, part):
    """Capitals, digits, separators and endings do not matter; a word that only contains one is no part."""
    assert part_called(name) == part


@pytest.mark.parametrize(
    ("train", "val"), [("train", "val"), ("Train", "Valid"), ("training", "validation"), ("TRAIN", "dev")]
)
def test_train_and_val_folders_are_parts(tmp_path, train, val):
    """Labels are the folders below; the images for validation select, and a share of training is the test part."""
    fill(tmp_path / "f", [f"{part}/{kind}" for part in (train, val) for kind in ("cat", "dog")], each=30)
    data = load_training(folder_set(), tmp_path)
    test = load_test(folder_set(), tmp_path)
    assert data.label_names == ("cat", "dog")
    assert len(data.validation) == 60
    assert len(data.train) + len(test) == 60
    assert 0 < len(test) < 20
    assert any("no folder for test" in note for note in data.notes)


def test_three_folders_are_three_parts(tmp_path):
    """With train, val and test each is what it says, whatever ``validation_fraction`` is."""
    fill(tmp_path / "f", ["train/a", "train/b"], each=10)
    fill(tmp_path / "f", ["val/a", "val/b"], each=4)
    fill(tmp_path / "f", ["test/a", "test/b"], each=3)
    data = load_training(folder_set(), tmp_path)
    assert (len(data.train), len(data.validation), len(load_test(folder_set(), tmp_path))) == (20, 8, 6)
    assert data.notes == ()
    drawn = load_training(folder_set(validation=5), tmp_path)
    assert (len(drawn.train), len(drawn.validation)) == (23, 5)


def test_what_lies_beside_the_parts_is_said(tmp_path):
    """Other folders and loose images are not used, and the notes count them."""
    fill(tmp_path / "f", ["train/a", "test/a", "extra", ""], each=5)
    (tmp_path / "f" / "labels.txt").write_text("x")
    (tmp_path / "f" / ".DS_Store").write_text("x")
    data = load_training(folder_set(validation=0), tmp_path)
    assert len(data.train) == 5
    told = " ".join(data.notes)
    assert "5 images in 'extra' are not used" in told
    assert "5 images outside of any folder are not used" in told
    assert "1 files of f are not used, as they are no images by their names (.txt)" in told


@pytest.mark.parametrize(
    "folders",
    [["train", "car", "bus"], ["control", "test"], ["freight train", "steam train"], ["dev", "ops"], ["a", "b"]],
    ids=str,
)
def test_labels_that_are_called_like_a_part_stay_labels(tmp_path, folders):
    """A train among vehicles and a test beside a control are labels."""
    fill(tmp_path / "f", folders)
    data = load_training(folder_set(validation=0, test_fraction=0), tmp_path)
    assert data.label_names == tuple(sorted(folders))
    assert data.notes == ()


@pytest.mark.parametrize(
    ("folders", "told"),
    [
        (["val/a", "test/a"], r"has 'test', 'val' and no folder for training"),
        (["test/a"], r"has 'test' and no folder for training"),
        (["validation/a"], r"has 'validation' and no folder for training"),
        (["trainA", "trainB", "testA", "testB"], r"several folders for train, 'trainA', 'trainB'"),
        (["train/a", "val/a", "valid/a"], r"several folders for validation, 'val', 'valid'"),
        (["cat/train", "cat/val", "dog/train", "dog/val"], r"has folders 'train', 'val': the parts must lie above"),
        (["set/train/a", "set/test/a"], r"has folders 'test', 'train': the parts must lie above"),
        (["seg_train/seg_train/a", "seg_test/seg_test/a"], r"has nothing but a folder 'seg_train'"),
    ],
    ids=str,
)
def test_parts_that_can_not_be_meant_are_refused(tmp_path, folders, told):
    """Without training, twice, or below the labels: one line with the folders' names."""
    fill(tmp_path / "f", folders)
    with pytest.raises(DataError, match=told) as refusal:
        load_training(folder_set(), tmp_path)
    assert "\n" not in str(refusal.value)


def test_a_folder_train_alone_is_the_training_part(tmp_path):
    """Its folders are the labels."""
    fill(tmp_path / "f", ["train/a", "train/b"])
    assert load_training(folder_set(validation=0, test_fraction=0), tmp_path).label_names == ("a", "b")


def test_folders_that_are_no_classes_are_refused(tmp_path):
    """A folder for each image is no label."""
    fill(tmp_path / "f", [f"patient{n}" for n in range(150)], each=1)
    with pytest.raises(DataError, match="150 different values in 150 examples: these are no classes"):
        load_training(folder_set(), tmp_path)


def drawing(mode, ink):
    """A disc whose shape is in the transparency alone."""
    shape = Image.new("L", (16, 16))
    ImageDraw.Draw(shape).ellipse((4, 4, 11, 11), fill=255)
    if mode == "LA":
        return Image.merge("LA", [Image.new("L", (16, 16), ink), shape])
    picture = Image.merge("RGBA", [Image.new("L", (16, 16), ink)] * 3 + [shape])
    return picture if mode == "RGBA" else picture.quantize(8)


@pytest.mark.parametrize("mode", ["LA", "RGBA", "P"])
@pytest.mark.parametrize(("ink", "background"), [(0, "white"), (255, "black"), (0, "grey")])
def test_transparency_is_put_on_the_background(tmp_path, mode, ink, background):
    """Ink is the ink's shade, and what is seen through is the background's."""
    (tmp_path / "f").mkdir()
    drawing(mode, ink).save(tmp_path / "f" / "a.png")
    image = load_training(folder_set(validation=0, test_fraction=0, background=background), tmp_path).train.images[0, 0]
    assert image[8, 8] == ink
    assert image[0, 0] == {"white": 255, "black": 0, "grey": 128}[background]


def test_a_transparent_colour_of_a_png_is_put_on_the_background(tmp_path):
    """PNG's own way of one transparent shade counts too."""
    (tmp_path / "f").mkdir()
    picture = Image.new("L", (8, 8), 7)
    picture.putpixel((3, 3), 100)
    picture.save(tmp_path / "f" / "a.png", transparency=7)
    image = load_training(folder_set(validation=0, test_fraction=0), tmp_path).train.images[0, 0]
    assert (image[3, 3], image[0, 0]) == (100, 255)


def test_an_opaque_alpha_channel_changes_nothing(tmp_path):
    """RGBA that is opaque everywhere gives the pixels that RGB gives, on whatever background."""
    (tmp_path / "f").mkdir()
    colours = np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8)
    Image.fromarray(colours).save(tmp_path / "f" / "a.png")
    Image.fromarray(colours).convert("RGBA").save(tmp_path / "f" / "b.png")
    for background in ("white", "black"):
        config = folder_set(validation=0, test_fraction=0, colour=True, background=background)
        images = load_training(config, tmp_path).train.images
        assert np.array_equal(images[0], colours.transpose(2, 0, 1))
        assert np.array_equal(images[1], colours.transpose(2, 0, 1))


def test_drawings_that_the_background_hides_are_refused(tmp_path):
    """White ink on white is nothing to learn from, and the other backgrounds are the remedy."""
    (tmp_path / "f").mkdir()
    drawing("LA", 255).save(tmp_path / "f" / "a.png")
    with pytest.raises(DataError, match=r"on a white background nothing is seen .* set data\.background"):
        load_training(folder_set(validation=0, test_fraction=0), tmp_path)


def test_transparency_of_an_earlier_record_is_dropped(tmp_path):
    """``reading`` 1 sees the colours below the transparency, as version 0.1.0 did."""
    (tmp_path / "f").mkdir()
    drawing("LA", 0).save(tmp_path / "f" / "a.png")
    assert load_training(folder_set(validation=0, test_fraction=0, reading=1), tmp_path).train.images.max() == 0


def test_a_transparent_picture_is_turned_upright(tmp_path):
    """How the camera was held is heeded where there is transparency."""
    (tmp_path / "f").mkdir()
    picture = Image.new("RGBA", (6, 4), (0, 0, 0, 0))
    picture.putpixel((0, 0), (0, 0, 0, 255))
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "f" / "a.png", exif=exif)
    images = load_training(folder_set(validation=0, test_fraction=0), tmp_path).train.images
    assert tuple(images.shape[2:]) == (6, 4)
    assert images[0, 0, 0, 3] == 0


@pytest.mark.parametrize("suffix", ["tif", "gif", "webp", "png"])
def test_several_frames_in_one_file_are_refused(tmp_path, suffix):
    """A stack or an animation is named, with the number of its frames."""
    (tmp_path / "f").mkdir()
    frames = [Image.new("L", (8, 8), 60 * k) for k in range(4)]
    frames[0].save(tmp_path / "f" / f"a.{suffix}", save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match=rf"a\.{suffix} can't be read as an image \(it holds 4 frames"):
        load_training(folder_set(validation=0, test_fraction=0), tmp_path)


def test_copies_and_previews_are_no_frames(tmp_path):
    """A TIFF with a smaller copy of itself and a photograph with a preview are one picture each."""
    (tmp_path / "f").mkdir()
    whole, small = Image.new("L", (8, 8), 200), Image.new("L", (4, 4), 100)
    small.encoderinfo = {"tiffinfo": {254: 1}}
    whole.save(tmp_path / "f" / "a.tif", save_all=True, append_images=[small])
    whole.save(tmp_path / "f" / "b.jpg", format="MPO", save_all=True, append_images=[Image.new("L", (8, 8))])
    images = load_training(folder_set(validation=0, test_fraction=0), tmp_path).train.images
    assert images.flatten(1).float().mean(1).tolist() == [200, 200]


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_more_than_eight_bits_are_refused(tmp_path, mode):
    """Deeper pixels would be cut off at 255."""
    (tmp_path / "f").mkdir()
    Image.new(mode, (8, 8), 1000).save(tmp_path / "f" / "a.tif")
    with pytest.raises(DataError, match=r"a\.tif can't be read as an image \(its pixels are '.*', not 8 bits"):
        load_training(folder_set(validation=0, test_fraction=0), tmp_path)
