import numpy as np
import polars as pl
import pytest

from regrow.errors import DataError
from regrow.streams.image_files import read_idx, read_parquet
from regrow.streams.pieces import together


def read(paths, size=None):
    return together(read_parquet(paths, size))


def test_parquet_files_are_read_one_after_the_other(tmp_path, grey, png, write_parquet):
    first = write_parquet(tmp_path / "a.parquet", [png(image) for image in grey[:3]], [3, 1, 2])
    second = write_parquet(tmp_path / "b.parquet", [png(image) for image in grey[3:]], [0, 9])
    images, labels = read([first, second])
    assert np.array_equal(images, grey) and images.dtype == np.uint8
    assert labels.tolist() == [3, 1, 2, 0, 9] and labels.dtype == np.int64


def test_colour_images_and_grey_ones_among_them(tmp_path, grey, png, write_parquet):
    colour = np.random.default_rng(1).integers(256, size=(4, 6, 3), dtype=np.uint8)
    images, _ = read([write_parquet(tmp_path / "a.parquet", [png(colour), png(grey[0])], [0, 1], image="img")])
    assert images.shape == (2, 4, 6, 3)
    assert np.array_equal(images[0], colour)
    assert np.array_equal(images[1], np.repeat(grey[0][:, :, None], 3, axis=2))


def test_one_bit_images_are_grey(tmp_path, png, write_parquet):
    ink = np.eye(4, dtype=np.uint8) * 255
    images, _ = read([write_parquet(tmp_path / "a.parquet", [png(ink, "1")], [0])])
    assert np.array_equal(images[0], ink)


def test_parquet_without_the_columns(tmp_path, grey, png, write_parquet):
    path = write_parquet(tmp_path / "a.parquet", [png(grey[0])], [0], label="fine")
    with pytest.raises(DataError, match=r"has the columns .*fine.*it needs .*called 'label'"):
        read([path])


@pytest.mark.parametrize("labels", [[0.5, 1.0], ["a", "b"], [0, None]], ids=["floats", "words", "gaps"])
def test_labels_that_are_no_whole_numbers(tmp_path, grey, png, write_parquet, labels):
    path = write_parquet(tmp_path / "a.parquet", [png(grey[0])] * 2, [0, 1])
    pl.read_parquet(path).with_columns(pl.Series("label", labels)).write_parquet(path)
    with pytest.raises(DataError, match=r"has the columns .*it needs .*integers without gaps.*Rename or fill them"):
        read([path])


def test_images_that_are_not_encoded(tmp_path):
    path = tmp_path / "a.parquet"
    pl.DataFrame({"image": [[0, 1]], "label": [0]}).write_parquet(path)
    with pytest.raises(DataError, match="it needs one of encoded images, struct{bytes, path}"):
        read([path])


@pytest.mark.parametrize("column", ["label", "fine_label", "labels"])
def test_what_the_column_of_labels_may_be_called(tmp_path, grey, png, write_parquet, column):
    _, labels = read([write_parquet(tmp_path / "a.parquet", [png(grey[0])], [3], label=column)])
    assert labels.tolist() == [3]


def name_classes(path, text):
    pl.read_parquet(path).write_parquet(path, metadata={"huggingface": text})
    return path


def test_a_label_beyond_the_classes_that_a_file_names(tmp_path, grey, png, write_parquet):
    names = '{"info": {"features": {"label": {"names": ["a", "b"], "_type": "ClassLabel"}, "image": {}}}}'
    path = name_classes(write_parquet(tmp_path / "a.parquet", [png(grey[0])] * 3, [0, 2, 1]), names)
    with pytest.raises(
        DataError, match=r"has the label 2 in row 1 and names 2 classes: labels must be below 2\. It is damaged"
    ):
        read([path])
    assert read([name_classes(write_parquet(path, [png(grey[0])], [1]), names)])[1].tolist() == [1]


@pytest.mark.parametrize("text", ["no json", "[]", '{"info": 3}', '{"info": {"features": null}}'])
def test_names_in_another_layout_are_passed_over(tmp_path, grey, png, write_parquet, text):
    assert read([name_classes(write_parquet(tmp_path / "a.parquet", [png(grey[0])], [9]), text)])[1].tolist() == [9]


def test_images_come_in_pieces(tmp_path, grey, png, write_parquet):
    colour = np.zeros((4, 6, 3), dtype=np.uint8)
    path = write_parquet(tmp_path / "a.parquet", [png(grey[0])] * 1000 + [png(colour)] * 2, range(1002))
    pieces = list(read_parquet([path]))
    assert [images.shape for images, _ in pieces] == [(1000, 4, 6), (2, 4, 6, 3)]
    assert np.concatenate([labels for _, labels in pieces]).tolist() == list(range(1002))


def test_an_empty_parquet_file(tmp_path, write_parquet):
    with pytest.raises(DataError, match="has no rows"):
        read([write_parquet(tmp_path / "a.parquet", [], [])])


@pytest.mark.parametrize("data", [b"no image", b"", None])
def test_an_image_that_cannot_be_decoded(tmp_path, grey, data, png, write_parquet):
    path = write_parquet(tmp_path / "a.parquet", [png(grey[0]), data], [0, 1])
    with pytest.raises(DataError, match=r"The image in row 1 of .*a\.parquet cannot be decoded"):
        read([path])


def test_an_image_of_more_than_8_bits(tmp_path, png, write_parquet):
    path = write_parquet(tmp_path / "a.parquet", [png(np.full((3, 3), 40_000, dtype=np.uint16))], [0])
    with pytest.raises(DataError, match="has mode 'I;16'.*only 8-bit"):
        read([path])


def test_images_of_different_sizes(tmp_path, grey, png, write_parquet):
    path = write_parquet(tmp_path / "a.parquet", [png(grey[0]), png(grey[1].T.copy())], [0, 1])
    with pytest.raises(
        DataError, match=r"sizes \(6×4 in row 0 of .*, 4×6 in row 1 of .*a\.parquet\): bring them to one size"
    ):
        read([path])


def test_a_file_that_is_not_parquet(tmp_path):
    path = tmp_path / "a.parquet"
    path.write_text("text")
    with pytest.raises(DataError, match=r"Cannot read .*a\.parquet.*Is it a parquet file"):
        read([path])


def test_a_parquet_file_that_is_cut_off(tmp_path, grey, png, write_parquet):
    path = write_parquet(tmp_path / "a.parquet", [png(image) for image in grey], [0, 1, 2, 3, 4])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"^Cannot read .*a\.parquet"):
        read([path])


def test_the_size_of_images_is_compared_before_they_are_reduced(tmp_path, png, write_parquet):
    pictures = [png(np.zeros((side, side), np.uint8)) for side in (4, 6)]
    with pytest.raises(DataError, match=r"different sizes \(4×4 in row 0 of .*, 6×6 in row 1 of "):
        read([write_parquet(tmp_path / "a.parquet", pictures, [0, 1])], size=2)


@pytest.mark.parametrize("name", ["images-idx3-ubyte", "images-idx3-ubyte.gz"])
def test_idx(tmp_path, grey, name, write_idx):
    array = read_idx(write_idx(tmp_path / name, grey))
    assert np.array_equal(array, grey) and array.flags.writeable


def test_idx_that_is_cut_off(tmp_path, grey, write_idx):
    path = write_idx(tmp_path / "images", grey)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="announces 5 × 4 × 6 values and has 119: it is cut off"):
        read_idx(path)
    path.write_bytes(path.read_bytes()[:9])
    with pytest.raises(DataError, match="cut off"):
        read_idx(path)


def test_gzip_that_is_cut_off(tmp_path, grey, write_idx):
    path = write_idx(tmp_path / "images.gz", grey)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"Cannot read .*images\.gz.*again"):
        read_idx(path)


def test_a_file_that_is_not_idx(tmp_path):
    path = tmp_path / "images"
    path.write_bytes(b"\x00\x00\x0d\x01")
    with pytest.raises(DataError, match="not an IDX file of unsigned bytes: it begins with 00 00 0d 01"):
        read_idx(path)
