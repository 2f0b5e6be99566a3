"""Every odd kind of picture file, written by the programs that write them, read back."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import simplejpeg
import torch

from alexnet.data.decode import MAX_PIXELS, DecodeError, decode, from_any
from alexnet.data.fit import fit, pixels_wanted
from alexnet.data.quiet import quiet_pillow
from alexnet.spec import InputSpec

RNG = np.random.default_rng(0)


def smooth(height: int = 48, width: int = 64) -> np.ndarray:
    """A picture that JPEG keeps well: uint8 [height, width, 3], every corner another color."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    return (np.stack((x, y, 1 - x * y), 2) * 255).astype(np.uint8)


def saved(image: PIL.Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def png(image: np.ndarray | PIL.Image.Image, **options: object) -> bytes:
    return saved(
        PIL.Image.fromarray(image) if isinstance(image, np.ndarray) else image, "PNG", **options
    )


def png_chunks(*chunks: tuple[bytes, bytes]) -> bytes:
    parts = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF", "PPM", "WEBP"])
def test_lossless_formats_keep_every_pixel(kind, tmp_path):
    palette = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 8, 7]], np.uint8)
    pixels = palette[RNG.integers(0, 4, (20, 30))]  # few colors: GIF has 256
    options = {"lossless": True} if kind == "WEBP" else {}
    path = tmp_path / "picture"
    path.write_bytes(saved(PIL.Image.fromarray(pixels), kind, **options))
    for source in (path, str(path), path.read_bytes()):
        assert np.array_equal(decode(source), pixels)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF", "PPM"])
def test_gray_stays_one_channel(kind):
    pixels = RNG.integers(0, 256, (20, 30), dtype=np.uint8)
    assert np.array_equal(decode(saved(PIL.Image.fromarray(pixels), kind))[:, :, 0], pixels)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
def test_jpeg(options):
    data = saved(PIL.Image.fromarray(smooth()), "JPEG", quality=95, **options)
    pixels = decode(data)
    assert np.abs(pixels.astype(int) - smooth()).max() <= 12
    reference = np.asarray(PIL.Image.open(io.BytesIO(data)))
    assert np.abs(pixels.astype(int) - reference).max() <= 3


def test_gray_jpeg():
    gray = smooth()[:, :, 0]
    pixels = decode(saved(PIL.Image.fromarray(gray), "JPEG", quality=95))
    assert pixels.shape == (48, 64, 1)
    assert np.abs(pixels[:, :, 0].astype(int) - gray).max() <= 6


@pytest.mark.parametrize("adobe", [True, False])
def test_cmyk_jpeg_with_and_without_adobes_inversion(adobe):
    cmyk = PIL.Image.fromarray(smooth()).convert("CMYK")
    if adobe:
        data = saved(cmyk, "JPEG", quality=95)
        assert b"Adobe" in data
    else:  # as a program writes it that does not invert: no marker, ink as it is
        data = saved(PIL.Image.fromarray(255 - np.asarray(cmyk), "CMYK"), "JPEG", quality=95)
        start = data.index(b"\xff\xee")
        length = int.from_bytes(data[start + 2 : start + 4], "big")
        data = data[:start] + data[start + 2 + length :]
        assert b"Adobe" not in data
    assert np.abs(decode(data).astype(int) - smooth()).max() <= 16


def test_png_palette_and_one_bit():
    colors = PIL.Image.fromarray(smooth()).quantize(16)
    assert np.array_equal(decode(png(colors)), np.asarray(colors.convert("RGB")))
    bits = RNG.integers(0, 2, (9, 13)).astype(bool)
    assert np.array_equal(decode(png(bits))[:, :, 0], bits * 255)


def test_alpha_is_laid_on_white():
    pixels = np.zeros((1, 3, 4), np.uint8)
    pixels[0, :, 0] = 200  # red: opaque, half, not at all
    pixels[0, :, 3] = 255, 128, 0
    red = decode(png(pixels))
    assert red[0, 0].tolist() == [200, 0, 0]
    assert red[0, 1].tolist() == pytest.approx([227, 127, 127], abs=1)
    assert red[0, 2].tolist() == [255, 255, 255]
    assert np.array_equal(
        decode(saved(PIL.Image.fromarray(pixels), "WEBP", lossless=True))[0, 2], [255] * 3
    )


def test_gray_with_alpha_stays_gray_on_white():
    image = PIL.Image.merge("LA", [PIL.Image.new("L", (2, 1), 40), PIL.Image.new("L", (2, 1))])
    image.putpixel((0, 0), (40, 255))
    assert decode(png(image)).tolist() == [[[40], [255]]]


@pytest.mark.parametrize("transparent", [1, b"\xff\x00"])
def test_transparent_palette_entries_are_white(transparent):
    image = PIL.Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    assert decode(png(image, transparency=transparent)).tolist() == [[[10, 20, 30], [255] * 3]]
    if transparent == 1:
        assert decode(saved(image, "GIF", transparency=1)).tolist() == [[[10, 20, 30], [255] * 3]]


def test_transparent_color_of_gray_and_rgb_png():
    gray = PIL.Image.fromarray(np.array([[0, 7]], np.uint8))
    assert decode(png(gray, transparency=7)).tolist() == [[[0], [255]]]
    color = PIL.Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8))
    assert decode(png(color, transparency=(4, 5, 6))).tolist() == [[[1, 2, 3], [255, 255, 255]]]
    deep = np.array([[5, 65535]], ">u2")
    data = png_chunks(
        (b"IHDR", struct.pack(">IIBBBBB", 2, 1, 16, 0, 0, 0, 0)),
        (b"tRNS", struct.pack(">H", 5)),
        (b"IDAT", zlib.compress(b"\0" + deep.tobytes())),
        (b"IEND", b""),
    )
    assert decode(data).tolist() == [[[255], [255]]]


def test_sixteen_bit_gray_is_scaled_not_clipped():
    values = np.arange(0, 65536, 13, dtype=np.uint16).reshape(1, -1)
    expected = np.rint(values / 257)
    assert np.array_equal(decode(png(values))[:, :, 0], expected)
    assert np.array_equal(decode(saved(PIL.Image.fromarray(values), "TIFF"))[:, :, 0], expected)
    assert np.array_equal(from_any(values)[:, :, 0], expected)


def test_sixteen_bit_color():
    values = RNG.integers(0, 65536, (4, 5, 3)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    data = png_chunks(
        (b"IHDR", struct.pack(">IIBBBBB", 5, 4, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    )
    assert np.abs(decode(data) - values / 257).max() <= 1


def test_first_frame_of_an_animation():
    frames = [PIL.Image.new("RGB", (5, 4), color) for color in ("red", "lime")]
    for kind, options in (("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {}), ("TIFF", {})):
        data = saved(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert np.array_equal(decode(data), np.broadcast_to([255, 0, 0], (4, 5, 3)))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_every_orientation_of_exif(orientation, kind):
    # What a camera stores for a scene that is to be seen as smooth() (Exif 2.3, section 4.6.4):
    # the side where row 0 and column 0 of the stored picture belong.
    seen = smooth()
    turned = seen.transpose(1, 0, 2)
    stored = {
        1: seen,  # top, left
        2: seen[:, ::-1],  # top, right
        3: seen[::-1, ::-1],  # bottom, right
        4: seen[::-1],  # bottom, left
        5: turned,  # left, top
        6: turned[::-1],  # right, top
        7: turned[::-1, ::-1],  # right, bottom
        8: turned[:, ::-1],  # left, bottom
    }[orientation]
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 95}, "WEBP": {"lossless": True}}.get(kind, {})
    image = PIL.Image.fromarray(np.ascontiguousarray(stored))
    pixels = decode(saved(image, kind, exif=exif, **options))
    assert pixels.shape == seen.shape
    assert np.abs(pixels.astype(int) - seen).max() <= 12


@pytest.mark.parametrize("value", [0, 9, 60000])
def test_nonsense_orientation_is_ignored(value):
    exif = PIL.Image.Exif()
    exif[0x0112] = value
    assert decode(saved(PIL.Image.fromarray(smooth()), "JPEG", exif=exif)).shape == (48, 64, 3)


@pytest.mark.parametrize(
    "before",
    [
        b"\xff\xe2\x00\x08\xff\xda\xff\xd9\xff\xe1",  # a segment with markers in it
        b"\xff\xe1\x00\x0ahttp:\0\0\0",  # another of the same kind
        b"\xff\xff\xff\xfe\x00\x03!",  # filled up
        b"\xff\xd0",  # a marker without a segment
        b"\xff\xfe\x00\x00",  # a length that leaves out its own two bytes
    ],
)
def test_orientation_is_found_behind_other_segments(before):
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    whole = saved(PIL.Image.fromarray(smooth()), "JPEG", exif=exif)
    assert decode(whole[:2] + before + whole[2:]).shape == (64, 48, 3)


def test_broken_exif_does_not_cost_the_picture():
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    whole = saved(PIL.Image.fromarray(smooth()), "JPEG", exif=exif)
    start = whole.index(b"Exif\0\0") + 6
    for junk in (b"\xff" * 8, b"II*\0\xff\xff\xff\x7f", b"MM\0*\0\0\0\x08"):
        data = whole[:start] + junk + whole[start + 8 :]
        assert decode(data).shape in ((48, 64, 3), (64, 48, 3))


def test_mpo_of_phones_is_a_jpeg():
    frames = [PIL.Image.fromarray(smooth()), PIL.Image.new("RGB", (64, 48))]
    data = saved(frames[0], "MPO", save_all=True, append_images=frames[1:], quality=95)
    assert np.abs(decode(data).astype(int) - smooth()).max() <= 12


def damaged() -> dict[str, tuple[bytes, str]]:
    """Damage that is seen in the wild, with a word of the reason that must be given."""
    jpeg = saved(PIL.Image.fromarray(smooth(480, 640)), "JPEG", quality=90)
    noise = RNG.integers(0, 256, (40, 50, 3), dtype=np.uint8)
    whole = png(noise)
    half = len(whole) // 2
    web = saved(PIL.Image.fromarray(noise), "WEBP")
    big = png_chunks(
        (b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(bytes(1000))),
        (b"IEND", b""),
    )
    return {
        "empty": (b"", "empty"),
        "jpeg cut in half": (jpeg[: len(jpeg) // 2], "truncated"),
        "jpeg cut in its header": (jpeg[:100], "truncated"),
        "jpeg overwritten in the middle": (
            jpeg[: len(jpeg) // 2] + bytes(400) + jpeg[len(jpeg) // 2 + 400 :],
            "damaged",
        ),
        "jpeg claims 65500x65500": (_claim(jpeg, 65500), "too large"),
        "png cut in half": (whole[:half], "truncated"),
        "png with a flipped bit": (
            whole[:half] + bytes([whole[half] ^ 1]) + whole[half + 1 :],
            "checksum",
        ),
        "png without picture data": (whole[:33], "damaged"),
        "png claims 60000x60000": (big, "too large"),
        "png signature alone": (whole[:8], "PNG"),
        "webp cut in half": (web[: len(web) // 2], ""),
        "gif cut": (saved(PIL.Image.fromarray(noise), "GIF")[:900], "truncated"),
        "bmp cut": (saved(PIL.Image.fromarray(noise), "BMP")[:900], "truncated"),
        "tiff cut": (saved(PIL.Image.fromarray(noise), "TIFF")[:900], ""),
        "text": (b"Dear reader,\nthis is not a picture.\n", "not an image"),
        "web page saved as jpg": (b"<!DOCTYPE html><html><body>404</body></html>", "not an image"),
        "zeros": (bytes(5000), "not an image"),
        "random bytes": (RNG.bytes(5000), "not an image"),
        "heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100), "HEIC"),
        "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", "not an"),
        "float tiff": (saved(PIL.Image.fromarray(np.ones((3, 3), np.float32)), "TIFF"), "8 bits"),
        "int tiff": (saved(PIL.Image.fromarray(np.full((3, 3), -5, np.int32)), "TIFF"), "8 bits"),
    }


def _claim(jpeg: bytes, side: int) -> bytes:
    start = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:start] + struct.pack(">HH", side, side) + jpeg[start + 4 :]


@pytest.mark.parametrize("name", damaged())
def test_damage_is_refused_with_its_reason_on_one_line(name):
    data, word = damaged()[name]
    with pytest.raises(DecodeError) as caught:
        decode(data)
    assert word in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_harmless_oddities_of_jpeg_are_read():
    data = saved(PIL.Image.fromarray(smooth()), "JPEG", quality=95)
    with pytest.raises(ValueError, match="extraneous"):
        simplejpeg.decode_jpeg(data[:-2] + b"a" * 9 + data[-2:])
    padded = data[:-2] + bytes(3000) + data[-2:]
    for odd in (data + b"appended" * 9, data[:-2] + b"a" * 9 + data[-2:], padded):
        assert np.abs(decode(odd).astype(int) - smooth()).max() <= 12


def test_size_limit_is_on_pixels():
    limit = DecodeError
    with pytest.raises(limit, match="too large"):
        from_any(PIL.Image.new("1", (MAX_PIXELS // 1000 + 1, 1000)))


def test_files_that_cannot_be_read(tmp_path):
    link = tmp_path / "loop.jpg"
    link.symlink_to(link)
    pipe = tmp_path / "pipe.jpg"
    os.mkfifo(pipe)
    reasons = {
        tmp_path / "missing.jpg": "No such file",
        tmp_path: "folder",
        link: "symbolic links",
        pipe: "not a regular file",
        Path("nul\0.jpg"): "null",
    }
    for path, word in reasons.items():
        with pytest.raises(DecodeError, match=word):
            decode(path)


def test_huge_file_that_is_no_picture_is_not_read_whole(tmp_path):
    path = tmp_path / "film.mp4"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # a terabyte of zeros, on paper
    with pytest.raises(DecodeError, match="not an image"):
        decode(path)


def test_from_any_takes_what_people_have(tmp_path):
    pixels = smooth()
    path = tmp_path / "a.png"
    path.write_bytes(png(pixels))
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    same = [path, str(path), path.read_bytes(), PIL.Image.fromarray(pixels), pixels, tensor]
    same += [pixels / 255, tensor / 255, (pixels / 255).astype(np.float32), tensor.bfloat16() * 0]
    for image in same[:-1]:
        assert np.array_equal(from_any(image), pixels)
    assert from_any(same[-1]).max() == 0
    assert np.array_equal(from_any(pixels[:, :, 0]), pixels[:, :, :1])
    assert np.array_equal(from_any(tensor[0]), pixels[:, :, :1])
    assert np.array_equal(from_any(pixels[:, :, 0] > 99)[:, :, 0], (pixels[:, :, 0] > 99) * 255)
    opaque = np.dstack((pixels, np.full(pixels.shape[:2], 255, np.uint8)))
    assert np.array_equal(from_any(opaque), pixels)
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    turned = PIL.Image.open(io.BytesIO(png(pixels, exif=exif)))
    assert from_any(turned).shape == (64, 48, 3)


@pytest.mark.parametrize(
    ("value", "word"),
    [
        (np.zeros((3, 48, 64), np.uint8), "shape"),
        (torch.zeros(48, 64, 3, dtype=torch.uint8), "shape"),
        (np.zeros((0, 5, 3), np.uint8), "shape"),
        (np.full((5, 5), 2.0), "floats from 0 to 1"),
        (np.full((5, 5), np.nan), "floats from 0 to 1"),
        (np.zeros((5, 5), np.int64), "uint8"),
        (7, "int is not an image"),
        (None, "NoneType"),
    ],
)
def test_from_any_refuses_what_is_no_picture(value, word):
    with pytest.raises(DecodeError, match=word):
        from_any(value)


def test_pillows_warnings_are_kept_off_in_all_threads_and_restored():
    before = list(warnings.filters)
    entered = threading.Barrier(4)

    def noisy(_: int) -> None:
        with quiet_pillow():
            entered.wait(10)
            warnings.warn_explicit("odd metadata", UserWarning, "Image.py", 1, module="PIL.Image")

    with ThreadPoolExecutor(4) as executor:
        list(executor.map(noisy, range(4)))  # a warning would raise here: warnings are errors
    assert list(warnings.filters) == before


def test_a_large_picture_does_not_warn_a_user(tmp_path):
    path = tmp_path / "large.png"
    PIL.Image.new("1", (10000, 9000)).save(path)  # Pillow warns from 89 million pixels
    code = f"from alexnet.data import decode; print(decode({str(path)!r}).shape)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "(9000, 10000, 1)\n"
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("at_least", "sides"),
    [(0, (900, 1300)), (451, (900, 1300)), (450, (450, 650)), (120, (225, 325)), (1, (113, 163))],
)
def test_a_large_jpeg_is_decoded_smaller_where_that_suffices(at_least, sides, tmp_path):
    rows, columns = np.mgrid[:900, :1300]
    pixels = np.stack([rows % 256, columns % 256, (rows + columns) // 2 % 256], 2).astype(np.uint8)
    path = tmp_path / "large.jpg"
    PIL.Image.fromarray(pixels).save(path, quality=95)
    assert decode(path, at_least).shape == (*sides, 3)


def test_what_is_fitted_differs_little(tmp_path):
    coarse = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    path = tmp_path / "photo.jpg"
    PIL.Image.fromarray(coarse).resize((1600, 1200), PIL.Image.Resampling.BICUBIC).save(path)
    spec = InputSpec(size=227, resize=256)
    whole, smaller = (fit(decode(path, n), spec).astype(int) for n in (0, pixels_wanted(256)))
    assert 0 < np.abs(whole - smaller).mean() < 1


@pytest.mark.parametrize("tail", [b"\0" * 64, b"IDAT" * 20, b"\n"])
def test_what_follows_the_end_of_a_png_is_not_of_it(tail, tmp_path):
    pixels = RNG.integers(0, 256, (9, 7, 3), np.uint8)
    (tmp_path / "a.png").write_bytes(png(pixels) + tail)
    np.testing.assert_array_equal(decode(tmp_path / "a.png"), pixels)
