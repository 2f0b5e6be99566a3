"""Pictures inside a page: charts as SVG that follow the page's colors, and bitmaps as data URIs."""

from __future__ import annotations

import base64
import io
import itertools
import math
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from markupsafe import Markup, escape

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Bitmap = npt.NDArray[np.uint8]

# Matplotlib draws in these; the page turns them into its own colors, light or dark.
INK, LINE = "#010203", "#010204"
SERIES = ("#010205", "#010206", "#010207", "#010208", "#010209", "#01020a")
_VARIABLES = {INK: "--ink", LINE: "--line"} | {
    color: f"--series-{n}" for n, color in enumerate(SERIES, start=1)
}
SMALL = 64
"""Pixels a side up to which a picture is shown with its pixels visible."""
_LEADER = {"arrowstyle": "-", "color": LINE, "linewidth": 0.8, "shrinkB": 5}
_LETTER, _LINE = 4.8, 9.5
"""Of a label, in points: what a letter takes at most, and a line."""
_WIDTH, _HEIGHT = 5.0, 3.1
"""Of a chart in inches of 72 units: text of 10 units is legible at a phone's width."""


def _chart(
    name: str,
    title: str,
    description: str,
    draw: Callable[[Axes], None],
    *,
    height: float = _HEIGHT,
) -> Markup:
    """What ``draw`` puts on axes, as inline SVG."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(_settings(name)):
        figure = Figure(figsize=(_WIDTH, height), layout="constrained", facecolor="none")
        axes = figure.add_subplot(facecolor="none")
        axes.set_title(title, fontsize=11)
        axes.grid(linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        draw(axes)
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", metadata={"Date": None})
    return _inline(drawn.getvalue(), name, description)


def curves(
    name: str,
    title: str,
    lines: Mapping[str, Sequence[float | None]],
    *,
    unit: str = "",
    stages: Sequence[tuple[int, str]] = (),
) -> Markup:
    """Draw values by epoch, one line a name, as inline SVG.

    Args:
        name: of the chart; makes its ids unique on the page.
        title: written above, and the start of the text that a screen reader reads.
        lines: name to a value an epoch, from epoch 1; None where there is none.
        unit: written after values, such as ``"%"``.
        stages: ``(first epoch, name)`` of the parts of a training that has several.
    """
    from matplotlib.ticker import MaxNLocator

    def draw(axes: Axes) -> None:
        for number, (label, values) in enumerate(lines.items()):
            points = [(x, y) for x, y in enumerate(values, start=1) if y is not None]
            style = {"color": SERIES[number % len(SERIES)], "linewidth": 1.8}
            # Every second one is dashed: told apart without color too.
            style["linestyle"] = "--" if number % 2 else "-"
            marker = {"marker": "o", "markersize": 4} if len(points) < 2 else {}
            axes.plot(*zip(*points, strict=True), label=_legend(label), **style, **marker)  # type: ignore[arg-type]
        for first, stage in stages:
            axes.axvline(first - 0.5, color=LINE, linewidth=1)
            axes.annotate(
                stage, (first - 0.5, 1), (3, -3), xycoords=("data", "axes fraction"),
                textcoords="offset points", va="top", fontsize=8,
            )  # fmt: skip
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}{unit}")
        known = [[value for value in values if value is not None] for values in lines.values()]
        falls = sum(values[-1] - values[0] for values in known if values) < 0
        # Where the lines are not: to look for the best place takes long on a busy machine.
        axes.legend(loc="upper right" if falls else "lower right", frameon=False, fontsize=9)

    return _chart(name, title, _describe(title, lines, unit), draw)


def scatter(
    name: str,
    title: str,
    points: Mapping[str, tuple[float, float]],
    *,
    across: str,
    unit: str = "",
    spans: Mapping[str, tuple[float, float]] | None = None,
) -> Markup:
    """Draw a point a name, the horizontal axis logarithmic, as inline SVG.

    Args:
        name: of the chart; makes its ids unique on the page.
        title: written above: what the vertical axis is.
        points: name to the horizontal (above 0) and the vertical value.
        across: what the horizontal axis is.
        unit: written after vertical values.
        spans: name to the ends of the vertical value's interval, where it has one.
    """

    def draw(axes: Axes) -> None:
        axes.set_xscale("log")
        for number, (label, (x_value, y_value)) in enumerate(points.items()):
            color = SERIES[number % len(SERIES)]
            axes.plot([x_value], [y_value], "o", color=color, markersize=7)
            if spans and label in spans:
                axes.plot([x_value, x_value], spans[label], color=color, linewidth=1.5, alpha=0.6)
        axes.set_xlabel(across)
        axes.margins(0.12, 0.15)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}{unit}")
        _label(axes, points)

    told = "; ".join(f"{label} {y:.3g}{unit} at {x:.3g}" for label, (x, y) in points.items())
    return _chart(name, title, f"{title} against {across}: {told}", draw)


def _label(axes: Axes, points: Mapping[str, tuple[float, float]]) -> None:
    """Write each point's name beside it, toward the middle, below those that are there already."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()  # from here on it is known where a point lies
    scale = 72 / figure.dpi
    where = {name: tuple(scale * axes.transData.transform(point)) for name, point in points.items()}
    middle = statistics.fmean(scale * end for end in axes.bbox.intervalx)
    taken = [(x - 4, x + 4, y) for x, y in where.values()]
    colors = dict(zip(points, itertools.cycle(SERIES)))
    for name, (x, y) in sorted(where.items(), key=lambda item: -item[1][1]):
        text, left = _legend(name.removeprefix("torchvision:").removeprefix("timm:")), x > middle
        size = _LETTER * len(text)
        start, end = (x - 8 - size, x - 8) if left else (x + 8, x + 8 + size)
        down = 0.0
        others = [one for one in taken if one != (x - 4, x + 4, y)]
        while any(a < end and start < b and abs(y - down - at) < _LINE for a, b, at in others):
            down += 1
        taken.append((start, end, y - down))
        axes.annotate(
            text, points[name], (-8 if left else 8, -down), fontsize=8, va="center",
            textcoords="offset points", ha="right" if left else "left",
            color=colors[name], arrowprops=_LEADER if down > _LINE else None,
        )  # fmt: skip


def intervals(
    name: str,
    title: str,
    rows: Mapping[str, tuple[float, float, float]],
    *,
    across: str,
    zero: bool = False,
) -> Markup:
    """Draw a value with its interval a name, one below the other, as inline SVG.

    Args:
        name: of the chart; makes its ids unique on the page.
        title: written above.
        rows: name to the value and the lower and upper end.
        across: what the values are.
        zero: draw a line at zero.
    """

    def draw(axes: Axes) -> None:
        if zero:
            axes.axvline(0, color=INK, linewidth=0.8)
        for number, (value, low, high) in enumerate(rows.values()):
            axes.plot([low, high], [-number, -number], color=SERIES[0], linewidth=1.8)
            axes.plot([value], [-number], "o", color=SERIES[0], markersize=5)
        axes.set_yticks([-number for number in range(len(rows))], list(map(_legend, rows)))
        axes.set_ylim(0.6 - len(rows), 0.6)
        axes.set_xlabel(across)
        axes.grid(visible=False, axis="y")

    told = "; ".join(
        f"{label} {value:.2f} ({low:.2f} to {high:.2f})"
        for label, (value, low, high) in rows.items()
    )
    height = 1.1 + 0.3 * len(rows)
    return _chart(name, title, f"{title}, {across}: {told}", draw, height=height)


def reliability_diagram(
    name: str,
    title: str,
    count: Sequence[int],
    confidence: Sequence[float | None],
    accuracy: Sequence[float | None],
) -> Markup:
    """Draw how often answers of some confidence are right, as inline SVG.

    A point a bin, its area by the share of the pictures; on the dashed line confidence is accuracy.

    Args:
        name: of the chart; makes its ids unique on the page.
        title: written above.
        count: pictures in each bin.
        confidence: their mean probability, from 0 to 1; None where there are none.
        accuracy: share of them that is right, from 0 to 1; None where there are none.
    """
    points = [
        (100 * c, 100 * a, n)
        for n, c, a in zip(count, confidence, accuracy, strict=True)
        if c is not None and a is not None
    ]
    total = sum(count) or 1

    def draw(axes: Axes) -> None:
        axes.plot([0, 100], [0, 100], "--", color=LINE, linewidth=1.2)
        axes.plot([c for c, _, _ in points], [a for _, a, _ in points], color=SERIES[0])
        for c, a, n in points:
            axes.plot([c], [a], "o", color=SERIES[0], markersize=3 + 12 * math.sqrt(n / total))
        axes.set_xlabel("confidence of the answers")
        axes.set_ylabel("share that is right")
        for axis in axes.xaxis, axes.yaxis:
            axis.set_major_formatter(lambda value, _: f"{value:g}%")
        axes.set_xlim(-2, 104)
        axes.set_ylim(-2, 104)

    told = "; ".join(f"{c:.0f}% sure, {a:.0f}% right ({n:,})" for c, a, n in points)
    return _chart(name, title, f"{title}: {told}", draw)


def _settings(name: str) -> dict[Any, Any]:
    """Of matplotlib, for a chart of that name."""
    return {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "font.size": 10,
        "text.color": INK,
        "axes.labelcolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "axes.edgecolor": LINE,
        "grid.color": LINE,
    }


def _legend(label: str) -> str:
    """A label that fits beside the lines and is not read as a formula."""
    return (label if len(label) <= 32 else label[:31] + "…").replace("$", r"\$")


def _describe(title: str, lines: Mapping[str, Sequence[float | None]], unit: str) -> str:
    """The chart in words."""
    parts = []
    for label, values in lines.items():
        known = [value for value in values if value is not None]
        if known:
            parts.append(f"{label} from {known[0]:.3g}{unit} to {known[-1]:.3g}{unit}")
    return f"{title} by epoch: {'; '.join(parts)}"


def _inline(svg: str, name: str, description: str) -> Markup:
    """Matplotlib's file as an element of a page: its colors, its font, unique ids, no links out."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px; font-family: inherit", svg)
    svg = re.sub(r"font-family: [^;\"]*", "font-family: inherit", svg)
    for color, variable in _VARIABLES.items():
        svg = svg.replace(color, f"var({variable})")
    used = set(re.findall(r'(?:href="#|url\(#)([\w.-]+)', svg))
    svg = re.sub(r' id="([^"]*)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in used else "", svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", svg)
    view = re.search(r'viewBox="[^"]*"', svg)
    assert view is not None
    body = svg[svg.index(">") + 1 :]
    label = escape(description)
    return Markup(f'<svg class="chart" role="img" aria-label="{label}" {view[0]}>') + Markup(body)


def data_uri(pixels: Bitmap, *, side: int | None = None) -> str:
    """A picture in a ``data:`` address, as a PNG.

    Args:
        pixels: uint8 ``[H, W]``, ``[H, W, 1]``, ``[H, W, 3]`` or ``[H, W, 4]``.
        side: of a photo, which is made smaller to at most this many pixels, and a JPEG if it is
            larger than a digit.
    """
    from PIL import Image

    picture = Image.fromarray(pixels.squeeze(2) if pixels.shape[2:] == (1,) else pixels)
    if side is not None:
        picture.thumbnail((side, side))
    is_photo = side is not None and max(picture.size) > SMALL
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG" if is_photo else "PNG", quality=88, optimize=True)
    kind = "jpeg" if is_photo else "png"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def confusion_bitmap(confusion: npt.NDArray[np.int64]) -> Bitmap:
    """``[K, K]`` counts as RGBA ``[K, K, 4]``: hits blue, misses orange, opaque by their share.

    A row's share is drawn by its square root, so that one miss among a hundred can be seen.
    """
    share = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    picture = np.empty((*confusion.shape, 4), dtype=np.uint8)
    picture[..., :3] = (226, 116, 44)
    picture[np.diag_indices(len(confusion))] = (56, 124, 220, 0)
    picture[..., 3] = np.where(share > 0, np.maximum(48, np.round(255 * np.sqrt(share))), 0)
    return picture


def filter_bitmap(kernels: npt.NDArray[np.float32], *, columns: int = 16) -> Bitmap:
    """Filters of a first layer as one picture, each stretched to the full range of gray or color.

    Args:
        kernels: ``[count, channels, height, width]``; 3 channels are shown as RGB, others averaged.
        columns: filters in a row.

    Returns:
        uint8 RGBA, a transparent pixel between filters.
    """
    if kernels.shape[1] != 3:
        kernels = kernels.mean(1, keepdims=True).repeat(3, axis=1)
    flat = kernels.reshape(len(kernels), -1)
    low = flat.min(1)[:, None, None, None]
    span = np.maximum(flat.max(1)[:, None, None, None] - low, 1e-12)
    tiles = np.round(255 * (kernels - low) / span).astype(np.uint8).transpose(0, 2, 3, 1)
    count, height, width, _ = tiles.shape
    columns = min(columns, count)
    rows = -(-count // columns)
    sheet = np.zeros((rows * (height + 1) - 1, columns * (width + 1) - 1, 4), dtype=np.uint8)
    for number, tile in enumerate(tiles):
        y, x = number // columns * (height + 1), number % columns * (width + 1)
        sheet[y : y + height, x : x + width, :3] = tile
        sheet[y : y + height, x : x + width, 3] = 255
    return sheet
