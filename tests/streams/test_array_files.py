import re

import numpy as np
import pytest

from regrow.errors import DataError
from regrow.streams import sources
from regrow.streams.array_files import class_files, read_batches, read_cifar_binary, read_classes
from regrow.streams.pieces import together


def read(reader, source):
    return together(reader(source))


@pytest.fixture
def colours():
    """Images [6, 32, 32, 3]."""
    return np.random.default_rng(2).integers(256, size=(6, 32, 32, 3), dtype=np.uint8)


def colour_by_colour(images):
    return images.transpose(0, 3, 1, 2)


def write_batch(path, images, labels):
    np.savez(path, data=colour_by_colour(images).reshape(len(images), -1), labels=np.asarray(labels), mean=np.zeros(3))
    return path


def write_cifar(path, images, fine, coarse=None):
    rows = np.empty((len(images), 3074), dtype=np.uint8)
    rows[:, 0] = 0 if coarse is None else coarse
    rows[:, 1] = fine
    rows[:, 2:] = colour_by_colour(images).reshape(len(images), -1)
    path.write_bytes(rows.tobytes())
    return path


def write_classes(folder, images, names=("0", "1", "2")):
    folder.mkdir(exist_ok=True)
    for name, part in zip(names, np.split(images, len(names)), strict=True):
        np.save(folder / f"{name}.npy", part)
    return folder


def test_batches_of_the_downsampled_imagenet(tmp_path, colours):
    folder = tmp_path / "imagenet-32"
    folder.mkdir()
    write_batch(folder / "train_data_batch_1.npz", colours[:2], [1, 1000])
    write_batch(folder / "train_data_batch_2.npz", colours[2:5], [7, 8, 9])
    write_batch(folder / "val_data.npz", colours[5:], [3])
    train, test = (sources.load(folder, split) for split in ("train", "test"))
    assert np.array_equal(train.images, colours[:5]) and train.labels.tolist() == [0, 999, 6, 7, 8]
    assert np.array_equal(test.images, colours[5:]) and test.labels.tolist() == [2]
    assert train.white == 255 and train.images.dtype == np.uint8 and train.labels.dtype == np.int64
    assert np.array_equal(sources.load(folder / "val_data.npz").images, colours[5:])


def test_large_batches_come_in_pieces(tmp_path):
    colours = np.zeros((1001, 4, 4, 3), dtype=np.uint8)
    path = write_batch(tmp_path / "a.npz", colours, range(1, 1002))
    pieces = list(read_batches([path, path]))
    assert [len(images) for images, _ in pieces] == [1000, 1, 1000, 1]
    assert np.concatenate([labels for _, labels in pieces]).tolist() == 2 * list(range(1001))


def test_batches_that_are_damaged(tmp_path, colours):
    path = write_batch(tmp_path / "train.npz", colours, [1] * 6)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(DataError, match=r"^Cannot read .*train\.npz: .*Copy or download it again"):
        read(read_batches, [path])
    with pytest.raises(DataError, match=r"^Cannot read .*none\.npz: .*No such file"):
        read(read_batches, [tmp_path / "none.npz"])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"data": np.zeros((2, 12), np.uint8)}, r"has the arrays \['data'\]: it needs 'data' and 'labels'"),
        ({"data": np.zeros((2, 12)), "labels": [1, 2]}, r"has data of float64 \[2, 12\]: it must be uint8 \[n, 3·side"),
        ({"data": np.zeros((2, 13), np.uint8), "labels": [1, 2]}, r"has data of uint8 \[2, 13\]"),
        ({"data": np.zeros((0, 12), np.uint8), "labels": []}, "one row or more"),
        ({"data": np.zeros((2, 12), np.uint8), "labels": [1]}, r"has labels of int64 \[1\]: it needs integers \[2\]"),
        (
            {"data": np.zeros((2, 12), np.uint8), "labels": [0, 1]},
            "has the label 0: in this layout classes count from 1",
        ),
    ],
)
def test_batches_of_another_layout(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=message):
        read(read_batches, [tmp_path / "a.npz"])


def test_batches_of_two_sizes(tmp_path, colours):
    one = write_batch(tmp_path / "a.npz", colours, [1] * 6)
    two = write_batch(tmp_path / "b.npz", colours[:, :16, :16], [1] * 6)
    with pytest.raises(
        DataError, match=r"b\.npz has images of uint8 16×16, and a\.npz of uint8 32×32: all must be alike"
    ):
        read(read_batches, [one, two])


class Trap:
    def __reduce__(self):
        return (exit, ("a pickle was opened",))


def test_pickles_are_never_opened(tmp_path):
    objects = np.array([Trap()], dtype=object)
    np.savez(tmp_path / "a.npz", data=objects, labels=objects)
    np.save(tmp_path / "0.npy", objects)
    with pytest.raises(
        DataError, match=r"^Cannot read .*a\.npz: it holds Python objects.*none is opened: save plain arrays"
    ):
        read(read_batches, [tmp_path / "a.npz"])
    with pytest.raises(
        DataError, match=r"^Cannot read .*0\.npy: it holds Python objects.*none is opened: save plain arrays"
    ):
        read(read_classes, [tmp_path / "0.npy"])
    with pytest.raises(DataError, match=r"is a single array: it must be an \.npz"):
        np.save(tmp_path / "b.npy", np.zeros(3))
        read(read_batches, [(tmp_path / "b.npy").rename(tmp_path / "b.npz")])
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    (folder / "train").write_bytes(b"\x80\x04")
    with pytest.raises(DataError, match=r"has no train images: .*The pickles in it \(train\) are not opened.*binary"):
        sources.load(folder)


@pytest.mark.parametrize("first", [False, True])
def test_a_folder_of_one_array_a_class(tmp_path, colours, first):
    folder = write_classes(tmp_path / "classes", colour_by_colour(colours) if first else colours, ("0", "2", "10"))
    found = sources.load(folder)
    assert np.array_equal(found.images, colours) and found.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert found.images.dtype == np.uint8 and found.white == 255
    with pytest.raises(DataError, match="has one array a class and no test part: load it as train"):
        sources.load(folder, "test")


def test_floats_are_taken_as_they_are(tmp_path, colours):
    values = colours.astype(np.float64) / 255 - 0.5
    found = sources.load(write_classes(tmp_path / "classes", values))
    assert found.images.dtype == np.float32 and found.white == 1
    assert np.array_equal(found.images, values.astype(np.float32))


def test_classes_called_by_names_are_in_the_order_of_these(tmp_path):
    for name in ("b", "10", "9"):
        np.save(tmp_path / f"{name}.npy", np.zeros(1))
    assert [path.stem for path in class_files(tmp_path)] == ["10", "9", "b"]


def test_classes_that_are_damaged_or_differ(tmp_path, colours):
    folder = write_classes(tmp_path / "classes", colours)
    path = folder / "1.npy"
    np.save(path, colours[:2, :16])
    with pytest.raises(DataError, match=r"1\.npy has images of uint8 16×32, and 0\.npy of uint8 32×32"):
        sources.load(folder)
    np.save(path, colours[:2].astype(np.float32))
    with pytest.raises(DataError, match=r"1\.npy has images of float32 .*all must be alike. Bring them to one"):
        sources.load(folder)
    for wrong in (colours[:2, :, :, :2], colours[0], colours[:0], colours[:2].astype(int)):
        np.save(path, wrong)
        message = rf"1\.npy has {wrong.dtype} {re.escape(str(list(wrong.shape)))}: it must be uint8 or floats \[n, 3,"
        with pytest.raises(DataError, match=message):
            sources.load(folder)
    path.write_bytes((folder / "0.npy").read_bytes()[:-9])
    with pytest.raises(DataError, match=r"^Cannot read .*1\.npy: .*Copy or download it again"):
        sources.load(folder)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite(tmp_path, colours, value):
    values = colours.astype(np.float32)
    values[3, 4, 5, 1] = value
    with pytest.raises(DataError, match=r"1\.npy has values that are not finite: copy or make it again"):
        sources.load(write_classes(tmp_path / "classes", values))


def test_cifar_100_in_its_binary_version(tmp_path, colours):
    folder = tmp_path / "cifar-100" / "cifar-100-binary"
    folder.mkdir(parents=True)
    write_cifar(folder / "train.bin", colours[:4], [0, 99, 3, 3], coarse=19)
    write_cifar(folder / "test.bin", colours[4:], [1, 2])
    train, test = (sources.load(tmp_path / "cifar-100", split) for split in ("train", "test"))
    assert np.array_equal(train.images, colours[:4]) and train.labels.tolist() == [0, 99, 3, 3]
    assert np.array_equal(test.images, colours[4:]) and test.labels.tolist() == [1, 2]
    assert np.array_equal(sources.load(folder / "test.bin").images, colours[4:])


def test_a_binary_file_that_is_cut_off_or_has_other_labels(tmp_path, colours):
    path = write_cifar(tmp_path / "train.bin", colours, [1] * 6)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"has 18443 bytes, which is no whole number of images of 3074: it is cut off"):
        read(read_cifar_binary, path)
    path.write_bytes(b"")
    with pytest.raises(DataError, match="has 0 bytes"):
        read(read_cifar_binary, path)
    write_cifar(path, colours, [1, 2, 100, 1, 1, 1])
    with pytest.raises(DataError, match="^Image 2 of .* has the labels 0 and 100: they must be below 20 and below 100"):
        read(read_cifar_binary, path)
    write_cifar(path, colours, [1] * 6, coarse=20)
    with pytest.raises(DataError, match="^Image 0 of .* has the labels 20 and 1"):
        read(read_cifar_binary, path)
    with pytest.raises(DataError, match="^Cannot read .*none.bin"):
        read(read_cifar_binary, tmp_path / "none.bin")
