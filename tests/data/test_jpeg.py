"""JPEGs decoded in C: libjpeg-turbo's bytes, whatever was written, or nothing."""

from __future__ import annotations

import contextlib
import ctypes
import io
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st

import alexnet.native
from alexnet.data import jpeg
from alexnet.data.decode import DecodeError, decode, square
from alexnet.data.fit import fit, pixels_wanted
from alexnet.native import Native, native
from alexnet.spec import InputSpec

HERE = hasattr(native().library, "jpeg_pixels")
HERE_RESIZED = hasattr(native().library, "jpeg_region")
needs_it = pytest.mark.skipif(not HERE, reason="needs a C compiler and AVX2")


def picture(kind: str, size: tuple[int, int], seed: int = 0) -> np.ndarray:
    height, width = size
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
    try:
        return simplejpeg.decode_jpeg(data, "RGB", strict=False)
    except ValueError:  # of what Pillow, which has libjpeg-turbo too, does not mind
        return np.asarray(PIL.Image.open(io.BytesIO(data)).convert("RGB"))


written = st.builds(
    lambda kind, size, seed, options: saved(picture(kind, size, seed), **options),
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
@pytest.mark.parametrize("kind", ["noise", "black and white"])
@pytest.mark.parametrize("quality", [92, 100])
def test_long_codes_at_any_place(quality: int, kind: str, subsampling: str) -> None:
    for seed in range(4):  # some 100,000 codes, all lengths one after another
        data = saved(picture(kind, (399, 401), seed), quality=quality, subsampling=subsampling)
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
    InputSpec(size=227, resize=256),
    InputSpec(size=224, resize=232, fit="stretch"),
    InputSpec(size=64, resize=67, interpolation="bicubic"),
    InputSpec(size=50, resize=50, fit="stretch", interpolation="bicubic"),
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
    data = saved(picture("noise", size, sum(size)), quality=93, subsampling=subsampling)
    side = spec.resize if whole else spec.crop
    pixels = jpeg._by_libjpeg(data, pixels_wanted(spec.resize))
    assert np.array_equal(square(data, spec, side), fit(pixels, spec, side))


@pytest.mark.skipif(not HERE_RESIZED, reason="needs a C compiler and AVX-512 VBMI")
def test_photographs_are_resized_while_they_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = SPECS[0]
    monkeypatch.setattr(jpeg, "_by_native", None)  # what would be called instead
    for size in ((375, 500), (500, 375), (300, 301), (511, 511)):
        data = saved(picture("noise", size), quality=90)
        found = jpeg.square_of_jpeg(data, spec, spec.resize)
        assert found is not None
        assert np.array_equal(found, fit(by_turbo(data), spec, spec.resize))


def test_without_the_library_pixels_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    data = saved(picture("noise", (90, 130)), quality=80)
    found, fitted = decode(data), square(data, SPECS[2])
    monkeypatch.setattr(jpeg, "native", lambda: Native(None, "left out"))
    assert np.array_equal(found, decode(data))
    assert np.array_equal(fitted, square(data, SPECS[2]))


@needs_it
@pytest.mark.parametrize("orientation", range(2, 9))
def test_exif_is_heeded(orientation: int) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    data = saved(picture("smooth", (60, 90)), exif=exif)
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
    data = UNUSUAL[kind](picture("smooth", (40, 60)))
    assert jpeg._by_native(data, 0) is None
    color = "GRAY" if kind == "gray" else "RGB"
    assert np.array_equal(decode(data), simplejpeg.decode_jpeg(data, color))


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2, "big") + content


@needs_it
def test_other_colors_and_numbers_of_restarts_are_left_to_libjpeg() -> None:
    data = saved(picture("smooth", (40, 60)), restart_marker_blocks=1)
    without_jfif = data[:2] + data[20:]
    assert np.array_equal(decode(without_jfif), by_turbo(without_jfif))
    assert jpeg._by_native(without_jfif, 0) is not None
    adobe = segment(0xEE, b"Adobe\0\x64" + bytes(5))
    frame, scan = data.index(b"\xff\xc0"), data.index(b"\xff\xda")
    named = bytearray(without_jfif)
    for number, name in enumerate(b"RGB"):
        named[frame - 18 + 10 + 3 * number] = named[scan - 18 + 5 + 2 * number] = name
    for other in (without_jfif[:2] + adobe + without_jfif[2:], bytes(named)):
        assert jpeg._by_native(other, 0) is None
        assert not np.array_equal(decode(other), decode(data))
    assert jpeg._by_native(data.replace(b"\xff\xd1", b"\xff\xd5", 1), 0) is None


@needs_it
def test_tables_that_are_missing_or_make_no_sense_are_refused() -> None:
    data = saved(picture("smooth", (40, 60)))
    scales, codes = data.index(b"\xff\xdb"), data.index(b"\xff\xc4\x00\xb5")
    huge = bytearray(data)
    huge[codes + 2 + 2 + 17 + 161] = 0x0F  # the last symbol: a number of 15 bits
    for other in (data[:scales] + data[scales + 69 :], bytes(huge)):
        assert jpeg._by_native(data, 0) is not None
        assert jpeg._by_native(other, 0) is None


class Scan:
    """A picture of one row of blocks that is written code by code, with the tables of T.81, K.3."""

    def __init__(self, blocks: int, quality: int = 100) -> None:
        whole = saved(picture("smooth", (8, 8 * blocks)), quality=quality, subsampling="4:4:4")
        self.head = whole[: whole.index(b"\xff\xda") + 14]
        self.bits = ""
        self.codes = dict(self._codes())

    def _codes(self) -> Iterator[tuple[tuple[int, int], str]]:
        place = 0
        while (place := self.head.find(b"\xff\xc4", place)) >= 0:
            table, counts = self.head[place + 4], self.head[place + 5 : place + 21]
            symbols, code = iter(self.head[place + 21 :]), 0
            for length, count in enumerate(counts, 1):
                for _ in range(count):
                    yield (table, next(symbols)), f"{code:0{length}b}"
                    code += 1
                code *= 2
            place += 1

    def put(self, table: int, symbol: int, number: int = 0) -> None:
        size = symbol & 15
        stored = number if number >= 0 else number + (1 << size) - 1
        self.bits += self.codes[table, symbol] + (f"{stored:0{size}b}" if size else "")

    def data(self) -> bytes:
        bits = self.bits + "1" * (-len(self.bits) % 8)
        scan = bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))
        return self.head + scan.replace(b"\xff", b"\xff\0") + b"\xff\xd9"


@needs_it
def test_codes_of_ones_alone_are_refused_as_libjpeg_does() -> None:
    scan = Scan(1)
    place = scan.head.index(b"\xff\xc4\x00\x1f\x00") + 5
    for last, good in ((1, True), (2, False)):  # the second of ten bits is 1111111111
        counts = bytes([0, 3, 1, 1, 1, 1, 1, 1, 1, last, 2 - last, *[0] * 5])
        scan.head = scan.head[:place] + counts + scan.head[place + 16 :]
        scan.codes, scan.bits = dict(scan._codes()), ""
        for color in (0, 1, 1):
            scan.put(color, 0)
            scan.put(0x10 + color, 0)
        assert (jpeg._by_native(scan.data(), 0) is not None) == good
        if not good:
            with pytest.raises(DecodeError):
                decode(scan.data())


@needs_it
def test_sides_beyond_libjpegs_are_refused() -> None:
    data = bytearray(saved(picture("smooth", (40, 60))))
    place = data.index(b"\xff\xc0") + 5
    for side, good in ((65500, True), (65501, False)):
        for first in (place, place + 2):
            data[place : place + 4] = bytes([0, 40, 0, 60])
            data[first : first + 2] = side.to_bytes(2, "big")
            assert (jpeg._head(native().library, bytes(data)) is not None) == good


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("side", [0, 65])
def test_a_square_larger_than_the_resized_picture_is_refused(kind: str, side: int) -> None:
    stream = io.BytesIO()
    PIL.Image.fromarray(picture("smooth", (90, 80))).save(stream, kind)
    with pytest.raises(ValueError, match="must lie between 1 and resize=64"):
        square(stream.getvalue(), InputSpec(size=56, resize=64), side)


@needs_it
@pytest.mark.parametrize("before", range(9))
def test_the_longest_codes_among_short_ones(before: int) -> None:
    """26 bits that are not in a table, and others of just as many bits as are looked up."""
    scan = Scan(1)
    for color in (0, 1, 1):
        waves = 0x10 + color
        scan.put(color, 0)
        for _ in range(before):
            scan.put(waves, 0x01, 1)
        for _ in range(5):
            scan.put(waves, 0x0A, 700)
            for _ in range(3):
                scan.put(waves, 0x04, 9)
                scan.put(waves, 0x01, -1)
        scan.put(waves, 0)
    found = jpeg._by_native(scan.data(), 0)
    assert found is not None
    assert np.array_equal(found, by_turbo(scan.data()))


@needs_it
def test_levels_beyond_16_bits_are_refused() -> None:
    scan = Scan(36)
    for block in range(36):
        for color in (0, 1, 1):
            scan.put(color, 11 if not color and block else 0, 2047)
            scan.put(0x10 + color, 0)
    assert jpeg._by_native(scan.data(), 0) is None


@needs_it
@pytest.mark.parametrize(("numbers", "fits"), [([10], True), ([20], False), ([900], False)])
def test_sums_beyond_those_of_a_picture_are_refused(numbers: list[int], fits: bool) -> None:
    scan = Scan(1, quality=1)  # of 255 a number
    for color in (0, 1, 1):
        scan.put(color, 0)
        for number in numbers:
            scan.put(0x10 + color, number.bit_length(), number)
        scan.put(0x10 + color, 0)
    found = jpeg._by_native(scan.data(), 0)
    assert (found is not None) == fits
    if found is not None:
        assert np.array_equal(found, by_turbo(scan.data()))


@needs_it
def test_a_block_that_goes_on_beyond_its_end_is_refused() -> None:
    for skipped in (3, 4):  # of 16 each, and 15 more: 63, or beyond
        scan = Scan(1)
        for color in (0, 1, 1):
            scan.put(color, 0)
            for _ in range(skipped):
                scan.put(0x10 + color, 0xF0)
            scan.put(0x10 + color, 0x61 if skipped == 4 else 0xE1, 1)
            if skipped == 4:
                scan.put(0x10 + color, 0)
        assert (jpeg._by_native(scan.data(), 0) is None) == (skipped == 4)


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
            some[place:place] = random.bytes(int(random.integers(1, 4)))
        else:
            del some[place + 1 : len(some) - random.choice([0, 2])]
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
def test_a_scan_that_is_too_short_or_too_long_is_refused() -> None:
    data = saved(picture("noise", (40, 60)), quality=90)
    assert jpeg._by_native(data, 0) is not None
    for cut in range(3, 300):
        assert jpeg._by_native(data[:-cut] + data[-2:], 0) is None
        assert jpeg._by_native(data[:-2] + b"a" * cut + data[-2:], 0) is None
    with pytest.raises(DecodeError, match="damaged"):
        decode(data[:-99] + data[-2:])
    with pytest.raises(DecodeError, match="truncated"):
        decode(data[:-99])


@needs_it
def test_threads_have_tables_of_their_own() -> None:
    files = [
        saved(picture("noise", (250 + i, 300), i), quality=60 + i, optimize=True) for i in range(24)
    ]
    wanted = [by_turbo(data) for data in files]
    with ThreadPoolExecutor(8) as threads:
        for _ in range(5):
            found = threads.map(lambda data: jpeg._by_native(data, 0), files)
            for pixels, others in zip(found, wanted, strict=True):
                assert pixels is not None
                assert np.array_equal(pixels, others)


@needs_it
def test_a_size_that_a_file_only_claims_is_refused() -> None:
    data = bytearray(saved(picture("smooth", (40, 60))))
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 4] = b"\xff\xdc\xff\xdc"
    with pytest.raises(DecodeError, match="too large: 65500x65500"):
        jpeg._by_native(bytes(data), 0)


@pytest.mark.skipif(shutil.which("gcc") is None or not HERE, reason="needs gcc and AVX2")
def test_processors_with_avx2_alone(tmp_path: Path) -> None:
    source, built = Path(alexnet.native.__file__).parent, tmp_path / "library.so"
    line = ["gcc", "-O2", "-mavx2", "-std=gnu11", "-fPIC", "-shared", "-Wno-psabi"]
    files = [*source.glob("jpeg*.c"), source / "resize.c"]
    subprocess.run([*line, *map(str, files), "-o", str(built)], check=True)
    library = ctypes.CDLL(str(built))
    for number in range(60):
        sampling = ["4:4:4", "4:2:2", "4:2:0"][number % 3]
        kind, size = ["noise", "smooth"][number % 2], (20 + 3 * number, 130 - number)
        data = saved(picture(kind, size, number), quality=40 + number, subsampling=sampling)
        pixels, (height, width) = np.empty((*size, 3), np.uint8), map(ctypes.c_int64, size)
        room = ctypes.c_void_p(pixels.ctypes.data)
        assert not library.jpeg_pixels(data, ctypes.c_int64(len(data)), room, height, width)
        assert np.array_equal(pixels, by_turbo(data))


@pytest.mark.skipif(shutil.which("gcc") is None or not HERE, reason="needs gcc and AVX2")
def test_damaged_files_never_reach_beyond_their_memory(tmp_path: Path) -> None:
    """Under the compiler's checks of addresses and of undefined behavior."""
    source = Path(alexnet.native.__file__).parent
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
        height, width = random.integers(1, 60, 2).tolist()
        sampling = ["4:4:4", "4:2:2", "4:2:0"][number % 3]
        options = {"quality": [40, 90, 100][number // 3 % 3], "subsampling": sampling}
        kind = "noise" if number % 2 else "smooth"
        data = saved(
            picture(kind, (height, width), number), restart_marker_blocks=number % 4, **options
        )
        for turn in range(25):
            written.append(tmp_path / f"{number}-{turn}.jpg")
            written[-1].write_bytes(damaged(data, random) if turn else data)
    written.append(tmp_path / "no scan.jpg")
    written[-1].write_bytes(Scan(400).data())
    written.append(tmp_path / "a table of codes beyond the end.jpg")
    written[-1].write_bytes(b"\xff\xd8" + segment(0xC4, bytes([0, *[0] * 15, 255])))
    written.append(tmp_path / "more codes than there are.jpg")
    written[-1].write_bytes(b"\xff\xd8" + segment(0xC4, bytes([0, 255, *[0] * 15, *[1] * 255])))
    done = subprocess.run(
        [str(program), *map(str, written)], capture_output=True, text=True, check=False
    )
    assert not done.returncode, done.stderr
    tried, decoded = map(int, done.stdout.split())
    assert tried == len(written)
    assert decoded > 60
