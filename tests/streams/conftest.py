"""Writers of small image files in the layouts that the loader reads."""

import gzip
import io
import struct

import numpy as np
import polars as pl
import pytest
from PIL import Image


def _png(pixels, mode=None):
    picture = Image.fromarray(pixels)
    file = io.BytesIO()
    (picture.convert(mode) if mode else picture).save(file, "PNG")
    return file.getvalue()


def _write_parquet(path, encoded, labels, image="image", label="label"):
    pl.DataFrame(
        {image: [{"bytes": data, "path": None} for data in encoded], label: labels},
        schema={image: pl.Struct({"bytes": pl.Binary, "path": pl.String}), label: pl.Int64},
    ).write_parquet(path)
    return path


def _write_idx(path, array):
    header = b"\x00\x00\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    data = header + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("REGROW_CACHE", str(folder))
    return folder


@pytest.fixture
def png():
    return _png


@pytest.fixture
def write_parquet():
    return _write_parquet


@pytest.fixture
def write_idx():
    return _write_idx


@pytest.fixture
def grey():
    return np.random.default_rng(0).integers(256, size=(5, 4, 6), dtype=np.uint8)
