"""Every kind of PNG and JPEG becomes the right grey pixels; what is right is computed here, without a decoder."""

import io
import struct

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.model_repository.conftest import Preprocess
from tests.model_repository.files import chunk, exif, jpeg, png, saved, segment, with_segment
from tests.workspace import FAMILY
from training import families

RANDOM = np.random.default_rng(20)
PALETTE = RANDOM.integers(0, 256, (256, 3))
ALPHAS = RANDOM.integers(0, 256, 256)
# The same in every block of 8 × 8, so that a JPEG of it is exact.
BLOCKS = RANDOM.integers(0, 256, (4, 4), np.uint8).repeat(8, axis=0).repeat(8, axis=1)[:28, :28]


def samples(channels: int, depth: int) -> NDArray[np.int64]:
    return RANDOM.integers(0, 1 << depth, (28, 28, channels))


def luma(rgb: NDArray[np.int64]) -> NDArray[np.int64]:
    """ITU-R 601 in 16 bits, rounded."""
    return (rgb @ [19595, 38470, 7471] + 0x8000) >> 16


def over_black(grey: NDArray[np.int64], alpha: NDArray[np.int64]) -> NDArray[np.int64]:
    return (grey * alpha + 127) // 255


def kinds() -> dict[str, tuple[NDArray[np.int64], int, int, bytes, NDArray[np.int64]]]:
    """Samples, colour type, depth, further chunks, and the grey that is right."""
    table = {}
    for depth in (1, 2, 4, 8, 16):
        grey = samples(1, depth)
        eight = grey[..., 0] >> 8 if depth == 16 else grey[..., 0] * 255 // ((1 << depth) - 1)
        table[f"grey {depth}"] = grey, 0, depth, b"", eight
        if depth in (1, 8):  # others are refused
            key = grey[3, 4, 0]
            transparent = np.where(grey[..., 0] == key, 0, eight)
            table[f"grey {depth}, one transparent"] = (
                grey,
                0,
                depth,
                chunk(b"tRNS", struct.pack(">H", key)),
                transparent,
            )
    for depth in (8, 16):
        shift = depth - 8
        rgba, grey_alpha = samples(4, depth), samples(2, depth)
        table[f"RGB {depth}"] = rgba[..., :3], 2, depth, b"", luma(rgba[..., :3] >> shift)
        table[f"RGBA {depth}"] = rgba, 6, depth, b"", over_black(luma(rgba[..., :3] >> shift), rgba[..., 3] >> shift)
        grey = over_black(grey_alpha[..., 0] >> shift, grey_alpha[..., 1] >> shift)
        table[f"grey and alpha {depth}"] = grey_alpha, 4, depth, b"", grey
    rgb = samples(3, 2) * 85
    key = rgb[5, 6]
    transparent = np.where((rgb == key).all(axis=2), 0, luma(rgb))
    table["RGB 8, one transparent"] = rgb, 2, 8, chunk(b"tRNS", struct.pack(">3H", *key)), transparent
    for depth in (1, 2, 4, 8):
        indices = samples(1, depth)
        palette = chunk(b"PLTE", bytes(PALETTE[: 1 << depth].ravel().tolist()))
        table[f"palette {depth}"] = indices, 3, depth, palette, luma(PALETTE)[indices[..., 0]]
        alphas = np.where(np.arange(256) < 3, ALPHAS, 255)[: 1 << depth]  # what tRNS leaves out is opaque
        transparency = chunk(b"tRNS", bytes(alphas[:3].tolist()))
        expected = over_black(luma(PALETTE[: 1 << depth]), alphas)[indices[..., 0]]
        table[f"palette {depth}, transparent"] = indices, 3, depth, palette + transparency, expected
    return table


KINDS = kinds()


@pytest.mark.parametrize("interlaced", [False, True], ids=["", "interlaced"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_png_has_the_pixels_that_it_stands_for(
    preprocess: Preprocess, kind: str, interlaced: bool
) -> None:
    values, colour, depth, more, expected = KINDS[kind]
    [pixels] = preprocess(png(values, colour, depth, more, interlaced))
    np.testing.assert_array_equal(pixels, expected)


def without_adobe(encoded: bytes) -> bytes:
    """A CMYK JPEG of libjpeg without its Adobe segment."""
    start = encoded.index(b"\xff\xee")
    return encoded[:start] + encoded[start + 2 + int.from_bytes(encoded[start + 2 : start + 4], "big") :]


BLACK_INK = np.dstack([np.zeros((28, 28, 3), np.uint8), 255 - BLOCKS])
JPEGS = {
    "grey": jpeg(BLOCKS, "L"),
    "RGB": jpeg(np.dstack([BLOCKS] * 3), "RGB"),
    "progressive": jpeg(np.dstack([BLOCKS] * 3), "RGB", progressive=True),
    "with restarts": jpeg(BLOCKS, "L", restart_marker_blocks=1),
    "CMYK, inverted as Adobe does": jpeg(BLACK_INK, "CMYK"),
    "CMYK, not inverted": without_adobe(jpeg(255 - BLACK_INK, "CMYK")),
}


@pytest.mark.parametrize("kind", JPEGS)
def test_every_kind_of_jpeg_has_the_pixels_that_it_stands_for(preprocess: Preprocess, kind: str) -> None:
    [pixels] = preprocess(JPEGS[kind])
    np.testing.assert_array_equal(pixels, BLOCKS)


def test_real_images_are_what_pillow_makes_of_them(preprocess: Preprocess) -> None:
    """At 28 × 28, and at sizes that are scaled."""
    [group] = families.load(FAMILY).data().split("test").first(16).groups
    images = [Image.fromarray(pixels[0]) for pixels in group.inputs["pixels"]]
    images += [image.resize((100, 75)) for image in images[:4]]
    tint = Image.merge("RGB", [Image.linear_gradient("L").resize((28, 28)), images[0], images[1]])
    images += [*(image.convert("RGB") for image in images), tint, tint.quantize(16)]
    files = [saved(image, "PNG") for image in images] + [
        saved(image.convert("RGB") if image.mode == "P" else image, "JPEG", quality=quality)
        for image in images
        for quality in (30, 90)
    ]
    for file in files:
        expected = Image.open(io.BytesIO(file)).convert("L").resize((28, 28), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(preprocess(file)[0], np.asarray(expected))


@pytest.mark.parametrize("order", ["<", ">"], ids=["little-endian", "big-endian"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_of_exif_is_applied(preprocess: Preprocess, orientation: int, order: str) -> None:
    upright = {
        1: BLOCKS,
        2: BLOCKS[:, ::-1],
        3: BLOCKS[::-1, ::-1],
        4: BLOCKS[::-1],
        5: BLOCKS.T,
        6: np.rot90(BLOCKS, -1),
        7: BLOCKS[::-1, ::-1].T,
        8: np.rot90(BLOCKS),
    }[orientation]
    tag = exif(orientation, order)
    for file in (
        png(BLOCKS[..., None], 0, more=chunk(b"eXIf", tag)),
        with_segment(JPEGS["grey"], 0xE1, b"Exif\0\0" + tag),
    ):
        np.testing.assert_array_equal(preprocess(file)[0], upright)


XMP = b"""<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:RDF><rdf:Description %s</rdf:Description></rdf:RDF></x:xmpmeta>"""
FORMS = {
    "attribute": b'tiff:Orientation="6">',
    "in single quotes": b"tiff:Orientation='6'>",
    "element": b"><tiff:Orientation>6</tiff:Orientation>",
    "on lines": b'tiff:Orientation =\n "6">',
}


@pytest.mark.parametrize("form", FORMS)
def test_the_orientation_of_xmp_is_applied_where_exif_has_none(preprocess: Preprocess, form: str) -> None:
    packet = XMP % FORMS[form]
    body = b"http://ns.adobe.com/xap/1.0/\0" + packet
    turned = np.rot90(BLOCKS, -1)
    for file in (
        with_segment(JPEGS["grey"], 0xE1, body),
        png(BLOCKS[..., None], 0, more=chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + packet)),
    ):
        np.testing.assert_array_equal(preprocess(file)[0], turned)
    both = with_segment(with_segment(JPEGS["grey"], 0xE1, body), 0xE1, b"Exif\0\0" + exif(1))
    np.testing.assert_array_equal(preprocess(both)[0], BLOCKS)


GREY = png(BLOCKS[..., None], 0)
FRAME = struct.pack(">IIIIIHHBB", 0, 28, 28, 0, 0, 1, 10, 0, 0)
ODD_BUT_WHOLE = {
    "50,000 texts": png(BLOCKS[..., None], 0, more=chunk(b"tEXt", b"a\0b") * 50_000),
    "a million animated frames": png(
        BLOCKS[..., None], 0, more=chunk(b"acTL", struct.pack(">II", 10**6, 0)) + chunk(b"fcTL", FRAME)
    ),
    "data in pieces of one byte": b"".join(
        [GREY[:33], *(chunk(b"IDAT", bytes([byte])) for byte in GREY[41:-16]), GREY[-12:]]
    ),
    "an unreadable eXIf": png(BLOCKS[..., None], 0, more=chunk(b"eXIf", b"II*\0\xff\xff\xff\xff")),
    "a zip archive behind it": GREY + b"PK\x05\x06" + bytes(18),
    "a PNG behind it": GREY + GREY,
    "a web page behind a JPEG": JPEGS["grey"] + b"<script>alert(1)</script>",
    "a video behind it, as in motion photos": JPEGS["grey"] + b"\0\0\0\x18ftypmp42" + b"\xff\xda\0\x08\xff\xd8" * 300,
    "a JPEG that ends early behind a JPEG": JPEGS["progressive"] + JPEGS["RGB"][:-2],
    "profiles behind a PNG": GREY + chunk(b"iCCP", b"a\0\0") * 3,
    "a scan of a thumbnail, and no other end": with_segment(JPEGS["grey"], 0xE1, JPEGS["RGB"][:-2]) + b"\xff\xda",
    "a PNG within a JPEG": with_segment(JPEGS["grey"], 0xFE, png(np.zeros((28, 28, 1), int), 0)),
    "a JPEG within a JPEG": with_segment(JPEGS["grey"], 0xE1, jpeg(255 - BLOCKS, "L")),
    "an endless EXIF directory": with_segment(JPEGS["grey"], 0xE1, b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + bytes(60_000)),
    "a malformed index of more pictures": with_segment(JPEGS["grey"], 0xE2, b"MPF\0MM\0*\0\0\0\x08\xff\xff"),
    "50,000 comments": JPEGS["grey"][:2] + segment(0xFE, b"") * 50_000 + JPEGS["grey"][2:],
    "bytes between the segments": JPEGS["grey"][:2] + segment(0xFE, b"") + bytes(100_000) + JPEGS["grey"][2:],
    "fill bytes before the end": JPEGS["grey"][:-2] + b"\xff" * 500_000 + JPEGS["grey"][-2:],
}


@pytest.mark.parametrize("kind", ODD_BUT_WHOLE)
def test_what_is_around_the_pixels_changes_nothing(preprocess: Preprocess, kind: str) -> None:
    np.testing.assert_array_equal(preprocess(ODD_BUT_WHOLE[kind])[0], BLOCKS)


def test_one_pixel_fills_the_picture(preprocess: Preprocess) -> None:
    assert (preprocess(png(np.full((1, 1, 1), 77), 0)) == 77).all()


def test_the_longest_pictures_within_the_limit_are_scaled(preprocess: Preprocess) -> None:
    for shape in ((1, 1 << 20, 1), (1 << 20, 1, 1)):
        assert (preprocess(png(np.full(shape, 200), 0)) == 200).all()
