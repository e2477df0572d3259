import contextlib
import io
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segloop.data import images
from segloop.data.images import ImageError, image_mode, image_size, open_image, open_labels

GREY = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5


def save(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)  # type: ignore[arg-type]
    return path


def test_rgb_is_kept_as_it_is(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    path = save(tmp_path / "a b ü.png", Image.fromarray(pixels))
    np.testing.assert_array_equal(open_image(path), pixels)
    assert image_size(path) == (8, 6)
    assert image_mode(path) == "RGB"


def test_greyscale_has_three_equal_channels(tmp_path: Path) -> None:
    found = open_image(save(tmp_path / "grey.png", Image.fromarray(GREY)))
    assert found.shape == (6, 8, 3)
    for channel in range(3):
        np.testing.assert_array_equal(found[:, :, channel], GREY)


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    path = save(tmp_path / "deep.png", Image.fromarray(GREY.astype(np.uint16) * 257))
    np.testing.assert_allclose(open_image(path)[:, :, 0].astype(int), GREY.astype(int), atol=1)


@pytest.mark.parametrize(("top", "expected"), [(1.0, 255), (255.0, 255), (65535.0, 255)])
def test_floats_are_scaled_by_their_range(tmp_path: Path, top: float, expected: int) -> None:
    values = np.linspace(0, top, 48, dtype=np.float32).reshape(6, 8)
    values[0, 0] = np.nan
    found = open_image(save(tmp_path / "float.tiff", Image.fromarray(values)))
    assert found[-1, -1].tolist() == [expected] * 3
    assert found[0, 0].tolist() == [0, 0, 0]


@pytest.mark.parametrize("mode", ["RGBA", "CMYK", "P", "1", "LA"])
def test_other_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    red = Image.new("RGB", (8, 6), (255, 0, 0)).convert(mode)
    suffix = "tiff" if mode == "CMYK" else "png"
    found = open_image(save(tmp_path / f"{mode}.{suffix}", red))
    assert found.shape == (6, 8, 3)
    assert found.dtype == np.uint8
    if mode not in ("1", "LA"):
        assert found[0, 0].tolist() == [255, 0, 0]


def test_a_palette_with_transparency_keeps_its_colours(tmp_path: Path) -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 200, 30])
    path = save(tmp_path / "palette.png", image, transparency=b"\xff\x80")
    assert open_image(path)[0, 0].tolist() == [10, 200, 30]


def test_the_rotation_of_a_photograph_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.zeros((6, 8, 3), np.uint8)
    pixels[:, 4:] = 255
    path = save(tmp_path / "turned.jpg", Image.fromarray(pixels), exif=exif, quality=95)
    found = open_image(path)
    assert found.shape == (8, 6, 3)
    assert image_size(path) == (6, 8)
    assert found[:3].mean() < 20 < 235 < found[-3:].mean()


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_size_and_pixels_agree_for_every_rotation(tmp_path: Path, suffix: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / f"a.{suffix}", Image.new("RGB", (8, 6)), exif=exif)
    found = open_image(path)
    assert image_size(path) == (found.shape[1], found.shape[0]) == ((6, 8) if orientation > 4 else (8, 6))
    assert found.flags.writeable


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for read in (open_image, image_size, image_mode):
        with pytest.raises(ImageError, match=r"none\.png does not exist"):
            read(tmp_path / "none.png")


@pytest.mark.parametrize("suffix", ["jpg", "png", "tiff", "webp", "bmp", "gif"])
def test_truncated_files_are_refused_at_any_length(tmp_path: Path, suffix: str) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (40, 50, 3), np.uint8)
    whole = save(tmp_path / f"whole.{suffix}", Image.fromarray(pixels)).read_bytes()
    path = tmp_path / f"half.{suffix}"
    for share in (0.0, 0.01, 0.05, 0.3, 0.6, 0.9):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(ImageError, match=f"half.{suffix} cannot be read"):
            open_image(path)


def test_noise_is_refused_or_read_never_a_foreign_error(tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    whole = save(tmp_path / "whole.png", Image.fromarray(GREY)).read_bytes()
    path = tmp_path / "noise.png"
    for _ in range(200):
        damaged = bytearray(whole)
        for place in random.integers(0, len(whole), 4):
            damaged[place] = random.integers(256)
        path.write_bytes(damaged)
        try:
            assert open_image(path).ndim == 3
        except ImageError as error:
            assert "noise.png" in str(error)


def test_a_folder_and_text_are_no_images(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("hello")
    for path in (tmp_path, tmp_path / "text.jpg"):
        with pytest.raises(ImageError, match="cannot be read as an image"):
            open_image(path)


def test_an_oversized_image_is_refused_before_it_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "grey.png", Image.fromarray(GREY))
    monkeypatch.setattr(images, "MAX_PIXELS", 47)
    with pytest.raises(ImageError, match="8 x 6 pixels, more than the limit of 47"):
        open_image(path)


def with_head(path: Path, width: int, height: int) -> None:
    """Write a small PNG whose head names another size."""
    stream = io.BytesIO()
    Image.new("RGB", (8, 6)).save(stream, "PNG")
    data = bytearray(stream.getvalue())
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    path.write_bytes(data)


def test_a_head_that_names_more_pixels_than_the_file_can_hold(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    with_head(path, 10_000, 10_000)
    for read in (image_size, open_image, open_labels):
        with pytest.raises(ImageError, match=r"10000 x 10000 pixels by its head, which \d+ bytes cannot hold"):
            read(path)
    flat = tmp_path / "flat.png"
    Image.new("1", (10_000, 10_000)).save(flat)
    assert image_size(flat) == (10_000, 10_000)


def test_a_chunk_that_claims_gigabytes_takes_none(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("L", (8, 6)).save(path)
    data = bytearray(path.read_bytes())
    place = data.index(b"IDAT")
    data[place - 4 : place] = struct.pack(">I", 0x7FFFFFFF)
    path.write_bytes(data)
    tracemalloc.start()
    try:
        with contextlib.suppress(ImageError):
            image_size(path)
            open_image(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10_000_000


@pytest.mark.parametrize(("mode", "shape"), [("L", (6, 8)), ("I;16", (6, 8)), ("P", (6, 8)), ("RGB", (6, 8, 3))])
def test_labels_are_the_numbers_of_the_file(tmp_path: Path, mode: str, shape: tuple[int, ...]) -> None:
    path = tmp_path / "a.png"
    numbers = np.arange(np.prod(shape)).reshape(shape).astype(np.uint16 if mode == "I;16" else np.uint8)
    numbers = numbers * 500 if mode == "I;16" else numbers
    image = Image.fromarray(numbers)
    if mode == "P":
        image.putpalette([7] * 768)
    image.save(path)
    np.testing.assert_array_equal(open_labels(path), numbers)


def test_labels_are_no_photographs(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 6)).save(tmp_path / "a.jpg")
    with pytest.raises(ImageError, match="mode CMYK; annotations are greyscale, palette or RGB"):
        open_labels(tmp_path / "a.jpg")
