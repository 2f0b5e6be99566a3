"""JPEGs decoded in C: libjpeg-turbo's bytes, whatever was written, or nothing."""

from __future__ import annotations

import contextlib
import io
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st

import alexnet.layers.native
from alexnet.data import jpeg
from alexnet.data.decode import DecodeError, decode, square
from alexnet.data.fit import fit, pixels_wanted
from alexnet.layers.native import Native, native
from alexnet.spec import InputSpec

HERE = hasattr(native().library, "jpeg_pixels")
HERE_RESIZED = hasattr(native().library, "jpeg_region")
needs_it = pytest.mark.skipif(not HERE, reason="needs a C compiler and AVX2")


def picture(kind: str, height: int, width: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    if kind == "noise":
        return random.integers(0, 256, (height, width, 3), dtype=np.uint8)
    if kind == "black and white":
        return random.integers(0, 2, (height, width, 1), dtype=np.uint8).repeat(3, 2) * 255
    rough = random.integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return np.asarray(PIL.Image.fromarray(rough).resize((width, height), 3))


def saved(pixels: np.ndarray, **options: Any) -> bytes:
    stream = io.BytesIO()
    PIL.Image.fromarray(pixels).save(stream, "JPEG", **options)
    return stream.getvalue()


def by_turbo(data: bytes) -> np.ndarray:
    """The pixels of a whole or a damaged JPEG."""
    return simplejpeg.decode_jpeg(data, "RGB", strict=False)


written = st.builds(
    lambda kind, size, seed, options: saved(picture(kind, *size, seed), **options),
    st.sampled_from(["noise", "black and white", "smooth"]),
    st.tuples(st.integers(1, 70), st.integers(1, 70)),
    st.integers(0, 9),
    st.fixed_dictionaries(
        {
            "quality": st.sampled_from([1, 10, 50, 75, 90, 95, 100]),
            "subsampling": st.sampled_from(["4:4:4", "4:2:2", "4:2:0"]),
            "optimize": st.booleans(),
            "restart_marker_blocks": st.sampled_from([0, 0, 1, 2, 5]),
        }
    ),
)


@needs_it
@settings(max_examples=400, deadline=None)
@given(data=written)
def test_every_byte_is_libjpegs(data: bytes) -> None:
    found = jpeg._by_native(data, 0)
    wanted = by_turbo(data)
    if found is None:  # so few columns of chroma are repeated by libjpeg, not interpolated
        assert wanted.shape[1] < 5 or wanted.shape[0] * wanted.shape[1] < 128
    else:
        assert np.array_equal(found, wanted)


@needs_it
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("quality", [92, 100])
def test_long_codes_at_any_place(quality: int, subsampling: str) -> None:
    for seed in range(4):  # some 100,000 codes, all lengths one after another
        data = saved(picture("noise", 399, 401, seed), quality=quality, subsampling=subsampling)
        found = jpeg._by_native(data, 0)
        assert found is not None
        assert np.array_equal(found, by_turbo(data))


@needs_it
def test_a_last_coefficient_ends_a_block_without_a_code() -> None:
    """The next code is the next block's, also where it is looked up together with the last one."""
    waves = np.indices((256, 256)).sum(0) % 2 * 255  # the highest wave there is, in every block
    for level in range(0, 256, 5):
        pixels = np.stack((waves, waves, waves * 0 + level), 2).astype(np.uint8)
        for quality in (60, 85, 96):
            data = saved(pixels, quality=quality, subsampling="4:4:4", optimize=True)
            found = jpeg._by_native(data, 0)
            assert found is not None
            assert np.array_equal(found, by_turbo(data))


SPECS = [
    InputSpec(size=size, resize=resize, fit=how, interpolation=interpolation)
    for size, resize, how, interpolation in [
        (227, 256, "crop", "bilinear"),
        (224, 232, "stretch", "bilinear"),
        (64, 67, "crop", "bicubic"),
        (50, 50, "stretch", "bicubic"),
    ]
]


@needs_it
@settings(max_examples=150, deadline=None)
@given(
    size=st.tuples(st.integers(5, 300), st.integers(5, 300)),
    spec=st.sampled_from(SPECS),
    subsampling=st.sampled_from(["4:4:4", "4:2:2", "4:2:0"]),
    whole=st.booleans(),
)
def test_squares_are_what_decoding_and_fitting_give(
    size: tuple[int, int], spec: InputSpec, subsampling: str, whole: bool
) -> None:
    data = saved(picture("noise", *size, sum(size)), quality=93, subsampling=subsampling)
    side = spec.resize if whole else spec.crop
    pixels = jpeg._by_libjpeg(data, pixels_wanted(spec.resize))
    assert np.array_equal(square(data, spec, side), fit(pixels, spec, side))


@pytest.mark.skipif(not HERE_RESIZED, reason="needs a C compiler and AVX-512 VBMI")
def test_photographs_are_resized_while_they_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = SPECS[0]
    monkeypatch.setattr(jpeg, "_by_native", None)  # what would be called instead
    for size in ((375, 500), (500, 375), (300, 301), (511, 511)):
        data = saved(picture("noise", *size), quality=90)
        found = jpeg.square_of_jpeg(data, spec, spec.resize)
        assert found is not None
        assert np.array_equal(found, fit(by_turbo(data), spec, spec.resize))


def test_without_the_library_pixels_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    data = saved(picture("noise", 90, 130), quality=80)
    found, fitted = decode(data), square(data, SPECS[2])
    monkeypatch.setattr(jpeg, "native", lambda: Native(None, "left out"))
    assert np.array_equal(found, decode(data))
    assert np.array_equal(fitted, square(data, SPECS[2]))


@needs_it
@pytest.mark.parametrize("orientation", range(2, 9))
def test_exif_is_heeded(orientation: int) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    data = saved(picture("smooth", 60, 90), exif=exif)
    assert jpeg._by_native(data, 0) is not None
    assert decode(data).shape == ((90, 60, 3) if orientation > 4 else (60, 90, 3))
    monkey = simplejpeg.decode_jpeg(data, "RGB")
    assert np.array_equal(decode(data), jpeg.upright(monkey, orientation))
    assert np.array_equal(square(data, SPECS[2]), fit(decode(data), SPECS[2]))


UNUSUAL = {
    "progressive": lambda p: saved(p, progressive=True),
    "gray": lambda p: saved(p[:, :, 0]),
    "4:4:0": lambda p: simplejpeg.encode_jpeg(p, 90, "RGB", "440"),
    "4:1:1": lambda p: simplejpeg.encode_jpeg(p, 90, "RGB", "411"),
    "RGB": lambda p: saved(p, keep_rgb=True),
    "16-bit scales": lambda p: saved(p, qtables=[[300] * 64] * 2),
}


@needs_it
@pytest.mark.parametrize("kind", UNUSUAL)
def test_what_is_unusual_is_left_to_libjpeg(kind: str) -> None:
    data = UNUSUAL[kind](picture("smooth", 40, 60))
    assert jpeg._by_native(data, 0) is None
    color = "GRAY" if kind == "gray" else "RGB"
    assert np.array_equal(decode(data), simplejpeg.decode_jpeg(data, color))


def damaged(data: bytes, random: np.random.Generator) -> bytes:
    """With some bytes changed, left out or put in between; more often in the scan than before."""
    some = bytearray(data)
    for _ in range(random.integers(1, 5)):
        first = data.index(b"\xff\xda") if random.random() < 0.6 else 0
        place = min(int(random.integers(first, len(data))), len(some) - 1)
        what = random.random()
        if what < 0.7:
            some[place] = random.integers(256)
        elif what < 0.8:
            del some[place : place + random.integers(1, 4)]
        elif what < 0.95:
            some[place:place] = random.bytes(random.integers(1, 4))
        else:
            del some[place + 1 :]
    return bytes(some)


@needs_it
@settings(max_examples=60, deadline=None)
@given(data=written, seed=st.integers(0, 1000))
def test_of_damaged_files_the_pixels_are_libjpegs_or_none(data: bytes, seed: int) -> None:
    random = np.random.default_rng(seed)
    for _ in range(50):
        mutant, found = damaged(data, random), None
        with contextlib.suppress(DecodeError):  # it claims to be too large
            found = jpeg._by_native(mutant, 0)
        if found is not None and found.size < 1 << 22:
            assert np.array_equal(found, by_turbo(mutant))


@needs_it
def test_threads_have_tables_of_their_own() -> None:
    files = [
        saved(picture("noise", 50 + i, 80, i), quality=60 + i, optimize=True) for i in range(24)
    ]
    wanted = [by_turbo(data) for data in files]
    with ThreadPoolExecutor(8) as threads:
        for _ in range(20):
            found = threads.map(decode, files)
            assert all(np.array_equal(a, b) for a, b in zip(found, wanted, strict=True))


@needs_it
def test_a_size_that_a_file_only_claims_is_refused() -> None:
    data = bytearray(saved(picture("smooth", 40, 60)))
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 4] = b"\xff\xff\xff\xff"
    with pytest.raises(DecodeError, match="too large: 65535x65535"):
        jpeg._by_native(bytes(data), 0)


@pytest.mark.skipif(shutil.which("gcc") is None or not HERE, reason="needs gcc and AVX2")
def test_damaged_files_never_reach_beyond_their_memory(tmp_path: Path) -> None:
    """Under the compiler's checks of addresses and of undefined behavior."""
    source = Path(alexnet.layers.native.__file__).parent
    program = tmp_path / "check"
    checks = "-g -O1 -march=native -std=gnu11 -fsanitize=address,undefined -fno-sanitize-recover"
    files = [*source.glob("jpeg*.c"), source / "resize.c", Path(__file__).with_name("check_jpeg.c")]
    built = subprocess.run(
        ["gcc", *checks.split(), f"-I{source}", *map(str, files), "-o", str(program)],
        capture_output=True,
        text=True,
        check=False,
    )
    if built.returncode and "cannot find" in built.stderr:
        pytest.skip("gcc has no sanitizers here")
    assert not built.returncode, built.stderr
    random, written = np.random.default_rng(1), []
    for number in range(40):
        size = random.integers(1, 60, 2)
        sampling = ["4:4:4", "4:2:2", "4:2:0"][number % 3]
        options = {"quality": [40, 90, 100][number // 3 % 3], "subsampling": sampling}
        kind = "noise" if number % 2 else "smooth"
        data = saved(picture(kind, *size, number), restart_marker_blocks=number % 4, **options)
        for turn in range(25):
            written.append(tmp_path / f"{number}-{turn}.jpg")
            written[-1].write_bytes(damaged(data, random) if turn else data)
    done = subprocess.run(
        [str(program), *map(str, written)], capture_output=True, text=True, check=False
    )
    assert not done.returncode, done.stderr
    tried, decoded = map(int, done.stdout.split())
    assert tried == len(written)
    assert decoded > 60
