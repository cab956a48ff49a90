import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from regrow.errors import DataError
from regrow.streams import sources
from regrow.streams.reduction import reduced


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("REGROW_DATA", str(tmp_path))
    monkeypatch.setattr(sources, "_DEBIAN", tmp_path / "none")
    return tmp_path


def test_the_packaged_digits():
    digits = sources.load("optical-digits")
    assert digits.images.shape == (1797, 8, 8) and digits.images.dtype == np.uint8
    assert digits.labels.dtype == np.int64
    assert np.bincount(digits.labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert digits.images.min() == 0 and digits.images.max() == digits.white == 16
    assert int(digits.images.sum(dtype=np.int64)) == 561_718
    assert digits.origin.startswith("1,797 images of 8×8 pixels, 10 classes, from the package (UCI optical")
    assert len(digits) == 1797


def test_the_licence_travels_with_the_digits():
    text = (Path(sources.__file__).parent / "data" / "LICENSE-optical-digits.txt").read_text()
    for words in ("Alpaydin", "Kaynak", "10.24432/C50P49", "CC BY 4.0"):
        assert words in text


def test_a_folder_of_parquet_below_the_data_folder(data, grey, png, write_parquet):
    (data / "small").mkdir()
    for shard in range(2):
        images = [png(image) for image in grey[2 * shard : 2 * shard + 2]]
        write_parquet(data / "small" / f"train-0000{shard}-of-00002.parquet", images, [shard, shard + 1])
    write_parquet(data / "small" / "test.parquet", [png(grey[4])], [7])
    train, test = sources.load("small"), sources.load("small", split="test")
    assert np.array_equal(train.images, grey[:4]) and train.labels.tolist() == [0, 1, 1, 2]
    assert np.array_equal(test.images, grey[4:]) and test.labels.tolist() == [7]
    assert train.origin.startswith("4 images of 4×6 pixels, 3 classes, from ")
    assert str(data / "small" / "train-00001-of-00002.parquet") in train.origin
    assert train.white == 255


def test_images_for_validation_are_the_test_part_where_there_is_no_other(data, grey, png, write_parquet):
    (data / "small").mkdir()
    write_parquet(data / "small" / "valid-00000-of-00001.parquet", [png(grey[0])], [3])
    assert sources.load("small", "test").labels.tolist() == [3]
    write_parquet(data / "small" / "test.parquet", [png(grey[0])], [4])
    assert sources.load("small", "test").labels.tolist() == [4]


def test_columns_as_cifar_100_has_them(data, png, write_parquet):
    colour = np.random.default_rng(1).integers(256, size=(4, 4, 3), dtype=np.uint8)
    path = write_parquet(data / "a.parquet", [png(colour)], [99], image="img", label="fine_label")
    found = sources.load(path)
    assert np.array_equal(found.images, colour[None]) and found.labels.tolist() == [99]


def test_images_are_reduced_as_they_are_read(data, png, write_parquet):
    colour = np.random.default_rng(1).integers(256, size=(3, 4, 4, 3), dtype=np.uint8)
    path = write_parquet(data / "a.parquet", [png(image) for image in colour], [0, 1, 2])
    found = sources.load(path, size=2)
    assert np.array_equal(found.images, reduced(colour, 2))
    assert found.origin == f"3 images of 2×2 pixels in colour, 3 classes, from {path}"
    with pytest.raises(DataError, match="have 4×4 pixels and cannot be reduced to 3×3"):
        sources.load(path, size=3)
    assert sources.load("optical-digits", size=4).images.shape == (1797, 4, 4)


def test_secret_labels(data, grey, png, write_parquet):
    path = write_parquet(data / "a.parquet", [png(image) for image in grey], [0, 1, -1, 2, -1])
    with pytest.raises(DataError, match=r"has the label -1 \(image 2\): classes count from 0.*take another part"):
        sources.load(path)


def test_the_first_of_several_sets_that_is_there(data):
    names = ("mnist", "fashion-mnist", "optical-digits")
    assert sources.first_of(names) == "optical-digits"
    assert sources.why_not_first(names, "optical-digits") == (
        "optical-digits stands in for mnist and fashion-mnist, which are neither below "
        f"REGROW_DATA={data} nor below {data / 'none'}."
    )
    (data / "fashion-mnist").mkdir()
    assert sources.first_of(names) == "fashion-mnist"
    assert "stands in for mnist, which is neither below" in sources.why_not_first(names, "fashion-mnist")
    (data / "mnist").mkdir()
    assert sources.first_of(names) == "mnist" and sources.why_not_first(names, "mnist") == ""
    assert sources.why_not_first(names, "optical-digits") == "", "asked for, though mnist is there"
    assert sources.first_of(["none", "hf://datasets/a/b/c.parquet"]).startswith("hf://")
    assert sources.first_of(["none", "generated-images"]) == "generated-images"


def test_none_of_several_sets_is_there(data):
    with pytest.raises(DataError, match=f"^None of these image sets is there: a, b. Looked below REGROW_DATA={data}"):
        sources.first_of(["a", "b"])


def test_large_sets_are_decoded_once(data, monkeypatch, grey, png, write_parquet):
    monkeypatch.setattr("regrow.streams.decoded.WORTH_KEEPING", 5)
    path = write_parquet(data / "a.parquet", [png(image) for image in grey], [0, 1, 2, 3, 4])
    first = sources.load(path)
    monkeypatch.setattr(sources, "read_parquet", None)
    again = sources.load(path)
    assert np.array_equal(again.images, grey) and again.labels.tolist() == [0, 1, 2, 3, 4]
    assert again.origin == first.origin


def test_a_file_by_its_path(tmp_path, grey, png, write_parquet):
    path = write_parquet(tmp_path / "some.parquet", [png(image) for image in grey], [0, 1, 2, 3, 4])
    assert np.array_equal(sources.load(path).images, grey)


@pytest.mark.parametrize("end", ["", ".gz"])
def test_idx_files_as_debian_installs_them(data, monkeypatch, grey, end, write_idx):
    root = data / "debian"
    folder = root / "fashion-mnist"
    folder.mkdir(parents=True)
    monkeypatch.setattr(sources, "_DEBIAN", root)
    for stem, part in (("train", grey[:3]), ("t10k", grey[3:])):
        write_idx(folder / f"{stem}-images-idx3-ubyte{end}", part)
        write_idx(folder / f"{stem}-labels-idx1-ubyte{end}", np.arange(len(part)))
    assert np.array_equal(sources.load("fashion-mnist").images, grey[:3])
    assert sources.load("fashion-mnist", split="test").labels.tolist() == [0, 1]
    assert np.array_equal(sources.load(folder / f"t10k-images-idx3-ubyte{end}").images, grey[3:])


def test_an_address_of_the_hub_is_opened_by_polars(monkeypatch, tmp_path, grey, png, write_parquet):
    path = write_parquet(tmp_path / "a.parquet", [png(grey[0])], [5])
    address = "hf://datasets/someone/something/train.parquet"
    read = pl.read_parquet
    monkeypatch.setattr(pl, "read_parquet", lambda source: read({address: path}[source]))
    loaded = sources.load(address)
    assert loaded.labels.tolist() == [5]
    assert loaded.origin == f"1 images of 4×6 pixels, 1 classes, from {address}"


def test_a_missing_set_names_the_three_ways(data):
    (data / "mnist").mkdir()
    with pytest.raises(DataError) as caught:
        sources.load("mnits")
    text = str(caught.value)
    assert f"no image set 'mnits': it is not packaged, not a path, and not below REGROW_DATA={data}" in text
    assert "did you mean 'mnist'? Known: generated-images, mnist, optical-digits." in text
    assert "Three ways" in text and "dataset-fashion-mnist" in text and "hf://datasets/owner/name/file.parquet" in text


def test_a_missing_set_without_a_data_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("REGROW_DATA", raising=False)
    monkeypatch.setattr(sources, "_DEBIAN", tmp_path)
    with pytest.raises(DataError, match="not below REGROW_DATA, which is not set"):
        sources.load("mnist")


def test_a_folder_without_images(data):
    (data / "empty").mkdir()
    with pytest.raises(
        DataError, match=r"has no train images: looked for train\*\.parquet, train-images-idx3.*one \.npy a class"
    ):
        sources.load("empty")


def test_an_unknown_split(data):
    (data / "some").mkdir()
    with pytest.raises(DataError, match="split='tst' is not a part of an image set: did you mean 'test'"):
        sources.load("some", split="tst")


def test_idx_images_without_their_labels(data, grey, write_idx):
    path = write_idx(data / "train-images-idx3-ubyte", grey)
    with pytest.raises(DataError, match="nor an IDX file of images with its labels beside it"):
        sources.load(path)


def test_idx_images_and_labels_that_do_not_fit(data, grey, write_idx):
    path = write_idx(data / "train-images-idx3-ubyte", grey)
    write_idx(data / "train-labels-idx1-ubyte", np.arange(4))
    with pytest.raises(DataError, match="has 5 images and 4 labels: they do not belong together"):
        sources.load(path)
    write_idx(data / "train-labels-idx1-ubyte", grey)
    with pytest.raises(DataError, match=r"holds \[5, 4, 6\] and train-labels-idx1-ubyte \[5, 4, 6\]"):
        sources.load(path)


@pytest.mark.skipif(
    not Path(os.environ.get("REGROW_DATA", "/nonexistent"), "mnist").is_dir(), reason="no MNIST below REGROW_DATA"
)
def test_real_mnist():
    for split in ("train", "test"):
        mnist = sources.load("mnist", split=split)
        assert mnist.images.shape == (10_000, 28, 28) and set(mnist.labels) == set(range(10))
