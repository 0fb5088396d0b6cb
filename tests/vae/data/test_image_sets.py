"""Sets that are folders of image files: Omniglot, CelebA, and anybody's."""

from __future__ import annotations

import os
import stat

import numpy as np
import pytest
import torch
from PIL import Image

import vae.data.image_files
from vae.data import CelebA, DataError, ImageFolder, Omniglot, clear_cache, load_test, load_training


def picture(path, values, **how):
    """Write ``values``, [H, W] or [H, W, 3], as an image file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values)).save(path, **how)
    return path


def noise(seed, *shape):
    """Random bytes."""
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def split_of(images):
    """Each image's bytes."""
    return {image.numpy().tobytes() for image in images}


# Omniglot.


@pytest.fixture
def omniglot(tmp_path):
    """Two characters of one alphabet and one of another to train on, a further one for test; four drawings each."""
    root = tmp_path / "omniglot-py"
    for place, (folder, character) in enumerate(
        [
            ("images_background/Greek", "character01"),
            ("images_background/Greek", "character02"),
            ("images_background/Latin", "character01"),
            ("images_evaluation/Avesta", "character01"),
        ]
    ):
        for drawing in range(4):
            paper = np.ones((105, 105), bool)
            paper[: 15 * (place + 1), : 15 * (drawing + 1)] = False  # ink
            picture(root / folder / character / f"{place:04}_{drawing + 1:02}.png", paper)
    return tmp_path


def test_omniglot_pixels(omniglot):
    """Ink is 255, each pixel is the mean of its area, and labels are characters in order of their folders."""
    data = load_training(Omniglot(size=7, validation=0), omniglot)
    assert (data.shape, data.levels, data.num_classes) == ((1, 7, 7), 255, 3)
    assert data.train.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    for place in range(3):
        for drawing in range(4):
            expected = torch.zeros(7, 7, dtype=torch.uint8)
            expected[: place + 1, : drawing + 1] = 255
            assert torch.equal(data.train.images[4 * place + drawing, 0], expected)
    half = load_training(Omniglot(size=1, validation=0), omniglot).train.images.flatten().double()
    ink = torch.tensor([(p + 1) * (d + 1) * 225 / 11025 * 255 for p in range(3) for d in range(4)]).double()
    assert (half - ink).abs().max() <= 1


def test_omniglot_parts(omniglot):
    """Test holds other characters; a tenth of training is held out."""
    data, test = load_training(Omniglot(size=7), omniglot), load_test(Omniglot(size=7), omniglot)
    assert [len(s) for s in (data.train, data.validation, test)] == [11, 1, 4]
    assert not split_of(test.images) & (split_of(data.train.images) | split_of(data.validation.images))


def test_omniglot_is_not_there(tmp_path):
    """Without the files: one line with what was expected where, and the remedy."""
    with pytest.raises(DataError, match=r"no omniglot in .*images_background/ALPHABET/CHARACTER/\*\.png.*--data-dir"):
        load_training(Omniglot(), tmp_path)


# CelebA.

PARTS = [0, 0, 1, 0, 2, 1, 0, 2]


@pytest.fixture
def celeba(tmp_path):
    """Eight noise faces in three published parts, grey so that JPEG keeps them apart, with two attributes."""
    root = tmp_path / "celeba"
    names = [f"{number:06}.jpg" for number in range(1, 9)]
    for place, name in enumerate(names):
        face = np.full((218, 178, 3), 255, np.uint8)
        face[35:183, 15:163] = 20 * place  # what a crop of 148 leaves
        picture(root / "img_align_celeba" / name, face, quality=100)
    (root / "list_eval_partition.txt").write_text("".join(f"{n} {p}\n" for n, p in zip(names, PARTS, strict=True)))
    rows = "".join(f"{n}  {1 if i % 2 else -1} {-1 if i % 2 else 1}\n" for i, n in enumerate(names))
    (root / "list_attr_celeba.txt").write_text(f"8\nMale Smiling \n{rows}")
    return tmp_path


def greys(split):
    """The number of each face of the fixture, from its middle."""
    return [round(int(image[0, 4, 4]) / 20) for image in split.images]


def test_celeba_has_the_published_parts(celeba):
    """Train, validation and test are as the partition file says, in its order, and no seed moves them."""
    for seed in (0, 1):
        data = load_training(CelebA(size=8, split_seed=seed), celeba)
        assert data.validation is not None
        assert [greys(s) for s in (data.train, data.validation)] == [[0, 1, 3, 6], [2, 5]]
    assert greys(load_test(CelebA(size=8), celeba)) == [4, 7]
    assert (data.shape, data.levels, data.num_classes) == ((3, 8, 8), 255, 0)


def test_celeba_crops_the_middle(celeba):
    """Of 178×218 the middle 148×148 is seen, and nothing of what is around it but what JPEG smears over the edge."""
    train = load_training(CelebA(size=148), celeba).train
    assert (train.images[:, :, 8:-8, 8:-8].amax((1, 2, 3)).int() - torch.tensor([0, 20, 60, 120])).abs().max() <= 1
    assert load_training(CelebA(size=8, crop=178), celeba).train.images[0, 0, 4, 0] > 100


def test_celeba_validation_by_number(celeba):
    """A ``validation`` count is drawn from the six others by the split seed; 0 trains on all six."""
    data = load_training(CelebA(size=8, validation=1), celeba)
    assert [len(data.train), len(data.validation)] == [5, 1]
    assert greys(load_training(CelebA(size=8, validation=0), celeba).train) == [0, 1, 2, 3, 5, 6]
    assert greys(load_test(CelebA(size=8, validation=0), celeba)) == [4, 7]


def test_celeba_attribute(celeba):
    """An attribute is a label of 0 or 1; one that there isn't is refused with the nearest."""
    data = load_training(CelebA(size=8, attribute="Male"), celeba)
    assert (data.num_classes, data.train.labels.tolist(), data.validation.labels.tolist()) == (2, [0, 1, 1, 0], [0, 1])
    assert load_test(CelebA(size=8, attribute="Smiling"), celeba).labels.tolist() == [1, 0]
    with pytest.raises(DataError, match=r"data\.attribute 'Smilin' .* did you mean 'Smiling'\?"):
        load_training(CelebA(size=8, attribute="Smilin"), celeba)


@pytest.mark.parametrize(
    ("file", "content", "told"),
    [
        ("list_eval_partition.txt", None, r"no celeba in the data directory .*--data-dir"),
        ("list_eval_partition.txt", "", r"list_eval_partition\.txt is empty"),
        ("list_eval_partition.txt", "000001.jpg 3\n", r"the part of 000001\.jpg must be 0, 1 or 2, got '3'"),
        ("list_eval_partition.txt", "000001.jpg\n", r"the part of 000001\.jpg must be 0, 1 or 2, got ''"),
        ("list_eval_partition.txt", "000001.jpg 2\n", r"names no training image"),
        ("list_eval_partition.txt", "000099.jpg 0\n", r"000099\.jpg is missing, and list_eval_partition\.txt names it"),
        ("list_attr_celeba.txt", None, r"no celeba in the data directory .*list_attr"),
        ("list_attr_celeba.txt", "1\nMale\n000001.jpg 1\n", r"list_attr_celeba\.txt is not CelebA's attribute table"),
        ("img_align_celeba/000002.jpg", "no jpeg", r"000002\.jpg can't be read as an image"),
    ],
    ids=str,
)
def test_damaged_celeba(celeba, file, content, told):
    """A file that is missing or damaged is one line with its name."""
    path = celeba / "celeba" / file
    path.unlink()
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=told) as refusal:
        load_training(CelebA(size=8, attribute="Male"), celeba)
    assert "\n" not in str(refusal.value)


def test_a_face_smaller_than_the_crop(celeba):
    """An image that the crop doesn't fit into is refused rather than padded with black."""
    picture(celeba / "celeba/img_align_celeba/000001.jpg", noise(0, 100, 178, 3))
    with pytest.raises(DataError, match=r"000001\.jpg .*it is 178×100, and data\.crop is 148"):
        load_training(CelebA(size=8), celeba)


# Any folder.


@pytest.fixture
def folder(tmp_path):
    """Sixty pictures of 6×4 in two folders, with names that nobody should give them."""
    for place in range(60):
        name = ["plain", "with space", "ümläut", "quote'", "new\nline"][place % 5]
        picture(tmp_path / "pets" / ["cat", "a dog"][place % 2] / f"{name} {place:02}.PNG", noise(place, 6, 4, 3))
    (tmp_path / "pets" / "cat" / ".hidden.png").write_text("no image")
    (tmp_path / "pets" / "cat" / "notes.txt").write_text("no image")
    return tmp_path


def test_a_folder_is_read_in_order(folder):
    """Every image once, by name; labels are the folders in order; colours come first."""
    config = ImageFolder(path="pets", test_fraction=0, validation=0)
    data = load_training(config, folder)
    files = sorted(path for path in (folder / "pets").rglob("*.PNG"))
    assert (data.shape, data.num_classes, data.levels) == ((3, 6, 4), 2, 255)
    expected = np.stack([np.asarray(Image.open(file)).transpose(2, 0, 1) for file in files])
    assert np.array_equal(data.train.images, expected)
    assert data.train.labels.tolist() == [0] * 30 + [1] * 30


def test_parts_of_a_folder_are_disjoint_and_stay(folder):
    """Test is chosen by name: further files, and the split seed, move no image from one part to the other."""
    config = ImageFolder(path="pets", test_fraction=0.3)
    data, test = load_training(config, folder), load_test(config, folder)
    training = split_of(data.train.images) | split_of(data.validation.images)
    assert not training & split_of(test.images)
    assert len(training | split_of(test.images)) == 60
    assert 8 <= len(test) <= 28  # 18 expected; five standard deviations are 18
    picture(folder / "pets" / "cat" / "a new one.png", noise(99, 6, 4, 3))
    clear_cache()
    assert split_of(test.images) <= split_of(load_test(config, folder).images)
    other = load_test(ImageFolder(path="pets", test_fraction=0.3, split_seed=5), folder)
    assert len(other) - len(test) in {0, 1}


def test_names_that_are_no_text(tmp_path):
    """File names that aren't UTF-8 are read like any other."""
    picture(tmp_path / "f" / "a.png", noise(0, 6, 4))
    try:
        (tmp_path / "f" / "a.png").rename(tmp_path / "f" / os.fsdecode(b"\xff\xfe.png"))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert len(load_training(ImageFolder(path="f", test_fraction=0.0001), tmp_path).train) == 1


def test_train_and_test_folders(tmp_path):
    """Folders ``train`` and ``test`` are the parts, and a label's number is the same in both."""
    for name, seed in (("train/b", 0), ("train/c", 1), ("test/a", 2), ("test/c", 3)):
        picture(tmp_path / "f" / name / "1.png", noise(seed, 6, 4))
    config = ImageFolder(path="f", colour=False, validation=0)
    data, test = load_training(config, tmp_path), load_test(config, tmp_path)
    assert (data.num_classes, data.train.labels.tolist(), test.labels.tolist()) == (3, [1, 2], [0, 2])
    assert np.array_equal(test.images[:, 0], [noise(2, 6, 4), noise(3, 6, 4)])


def test_a_flat_folder_has_no_labels(tmp_path):
    """Images without sub-folders have the one label 0, of no classes."""
    for place in range(3):
        picture(tmp_path / "f" / f"{place}.png", noise(place, 6, 4))
    data = load_training(ImageFolder(path="f", test_fraction=0, validation=0), tmp_path)
    assert (data.num_classes, data.train.labels.tolist(), data.shape) == (0, [0, 0, 0], (3, 6, 4))


def test_resized_and_cut(tmp_path):
    """With ``size`` each image is square and upright, whatever its own size and how the camera was held."""
    halves = np.zeros((8, 16), np.uint8)
    halves[:, 8:] = 255
    picture(tmp_path / "f" / "a.png", halves)
    turned = Image.Exif()
    turned[0x0112] = 6  # turn it by 90 degrees clockwise to see it upright
    picture(tmp_path / "f" / "b.jpg", halves, exif=turned, quality=100)
    images = load_training(
        ImageFolder(path="f", size=2, colour=False, test_fraction=0, validation=0), tmp_path
    ).train.images
    dark = torch.tensor([[[1, 0], [1, 0]], [[1, 1], [0, 0]]]).bool()
    assert torch.equal(images[:, 0] < 60, dark)
    assert torch.equal(images[:, 0] < 200, dark)
    with pytest.raises(DataError, match=r"b\.jpg is 16×8, but a\.png is 8×16: give data\.size"):
        load_training(ImageFolder(path="f"), tmp_path)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda f: picture(f / "z.png", noise(1, 5, 4)), r"z\.png is 5×4, but a\.png is 6×4: give data\.size"),
        (lambda f: (f / "z.png").write_bytes(b"no image"), r"z\.png can't be read as an image"),
        (lambda f: (f / "z.jpg").write_bytes(b""), r"z\.jpg can't be read as an image"),
        (
            lambda f: picture(f / "sub" / "z.png", noise(1, 6, 4)),
            r"a\.png has no label, and other images lie in folders",
        ),
        (lambda f: picture(f / "z.png", np.full((6, 4), 999, np.uint16)), r"z\.png .*not 8 bits"),
        (lambda f: (f / "a.png").unlink(), r"no images in \S+: looked for \.png"),
    ],
    ids=["size", "text", "empty", "mixed", "16 bits", "none"],
)
def test_refused_folders(tmp_path, make, told):
    """What can't be read is one line with the file."""
    picture(tmp_path / "f" / "a.png", noise(0, 6, 4))
    make(tmp_path / "f")
    with pytest.raises(DataError, match=told) as refusal:
        load_training(ImageFolder(path="f", test_fraction=0), tmp_path)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "webp"])
def test_truncated_and_garbled_images(tmp_path, suffix):
    """However an image was cut off or overwritten, it is read or refused by name; nothing else."""
    path = picture(tmp_path / "f" / f"a.{suffix}", noise(0, 16, 16, 3))
    whole = path.read_bytes()
    garbled = np.random.default_rng(0)
    refused = 0
    for length in range(0, len(whole), max(1, len(whole) // 30)):
        content = bytearray(whole)
        for place in garbled.integers(0, len(whole), 8):
            content[place] ^= 0xFF
        for attempt in (whole[:length], bytes(content)):
            path.write_bytes(attempt)
            try:
                ImageFolder(path="f", size=4, test_fraction=0).load(tmp_path, train=True)
            except DataError as refusal:
                refused += 1
                assert f"a.{suffix} can't be read as an image" in str(refusal)  # noqa: PT017 - it may be read, too
    assert refused >= 20


def test_no_such_folder(tmp_path):
    """A folder that isn't there is refused with both places that were tried."""
    with pytest.raises(DataError, match=r"no folder 'f': looked for \S+/f and \S+/f; give data\.path or --data-dir"):
        load_training(ImageFolder(path="f"), tmp_path)


# What is decoded is kept.


@pytest.fixture
def kept(folder, monkeypatch):
    """The folder, of which decoded images are kept however few; and how many are decoded."""
    monkeypatch.setattr(vae.data.image_files, "WORTH_KEEPING", 1)
    decoded = []
    fill = vae.data.image_files.fill
    monkeypatch.setattr(vae.data.image_files, "fill", lambda v, f, p: (decoded.append(len(f)), fill(v, f, p)))
    return folder, decoded


def test_images_are_decoded_once(kept):
    """The second who asks reads what the first decoded; another size, or a changed file, is decoded."""
    folder, decoded = kept
    config = ImageFolder(path="pets", test_fraction=0, validation=0)
    first, again = (config.load(folder, train=True).images for _ in range(2))
    assert torch.equal(first, again)
    assert decoded == [60]
    ImageFolder(path="pets", size=3, test_fraction=0).load(folder, train=True)
    assert decoded == [60, 60]
    picture(folder / "pets" / "cat" / "plain 00.PNG", noise(77, 6, 4, 3))
    changed = config.load(folder, train=True).images
    assert decoded == [60, 60, 60]
    assert not torch.equal(first, changed)
    assert all(stat.S_IMODE(file.stat().st_mode) & 0o044 for file in (folder / ".decoded").iterdir())


def test_a_damaged_copy_is_made_again(kept):
    """What was kept and is damaged is decoded again rather than believed."""
    folder, decoded = kept
    config = ImageFolder(path="pets", test_fraction=0)
    first = config.load(folder, train=True).images
    (copy,) = (folder / ".decoded").iterdir()
    copy.write_bytes(copy.read_bytes()[:200])
    assert torch.equal(config.load(folder, train=True).images, first)
    assert decoded == [60, 60]


def test_nothing_is_left_of_a_failure(kept):
    """A corrupt image leaves no half-decoded array behind."""
    folder, _ = kept
    (folder / "pets" / "cat" / "zz.png").write_text("no image")
    with pytest.raises(DataError, match=r"zz\.png can't be read as an image"):
        load_training(ImageFolder(path="pets", size=4, test_fraction=0), folder)
    assert list((folder / ".decoded").iterdir()) == []


def test_a_data_directory_that_is_not_ours(kept, monkeypatch, tmp_path_factory):
    """Where the data directory can't be written, what is decoded is kept in the user's cache."""
    folder, _ = kept
    (folder / ".decoded").write_text("in the way")
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    load_training(ImageFolder(path="pets", test_fraction=0), folder)
    assert len(list((cache / "vae-research").glob("*.npy"))) == 1
