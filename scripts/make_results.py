"""Rewrite benchmarks/RESULTS.md, and tables of other pages, from what was measured.

    make bench                      # measures
    python scripts/make_results.py  # reads benchmarks/results/*.json

Nothing is measured here, so the tables follow from the files; a test holds them to it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "benchmarks" / "RESULTS.md"
PERFORMANCE = ROOT / "docs" / "performance.md"
README = ROOT / "README.md"

Row = tuple[str, str, str]
"""What, the figure, the script."""


def read(name: str) -> dict[str, Any]:
    """What a script wrote."""
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return found


def times(found: dict[str, Any], digits: int = 2) -> str:
    """A ratio's median and range."""
    return (
        f"**{found['median']:.{digits}f}** ({found['least']:.{digits}f} to "
        f"{found['most']:.{digits}f}, n = {found['n']})"
    )


def figure(found: dict[str, Any], unit: str, scale: float = 1.0, digits: int = 1) -> str:
    """A median with its unit."""
    return f"{found['median'] * scale:.{digits}f} {unit}"


def lrn() -> Iterator[Row]:
    """Local response normalization."""
    found = read("lrn")
    ratios, took = found["times_faster_than"], found["milliseconds"]
    for name, about in (
        ("default bf16", "LRN, forward and backward, in bf16"),
        ("default fp32", "LRN in fp32"),
        ("pieces bf16", "LRN without a compiler, in bf16"),
        ("pieces fp32", "LRN without a compiler, in fp32"),
    ):
        took_now = figure(took[name], "ms")
        yield f"{about} ({took_now}), over torch's in fp32", times(ratios["torch"][name], 1), "lrn"
        kept = times(ratios["torch, memory kept"][name], 1)
        yield "the same, torch with freed memory kept", kept, "lrn"


def step() -> Iterator[Row]:
    """The training step."""
    found = read("step")
    ratios, rates = found["ratios"], found["images_a_second"]
    ours = figure(rates["alexnet"], "images/s")
    for name, about in (
        ("stock fp32", f"`alexnet`, a training step of 128 ({ours}), over stock modules in fp32"),
        ("stock best", "over the better of that and bf16, channels_last, fused, in each round"),
        ("stock best, memory kept", "the same, with an allocator that keeps freed memory"),
        ("lrn", "the share of its speed without normalization"),
        ("floor", "convolutions and linear layers, each alone, as a share of the step"),
    ):
        yield about, times(ratios[name]), "step"


def keras() -> Iterator[Row]:
    """Keras."""
    found = read("keras_step")
    ours = figure(found["images_a_second"]["alexnet_ungrouped"], "images/s")
    for name in ("keras mixed_bfloat16", "keras float32"):
        about = f"`alexnet_ungrouped`, a training step of 128 ({ours}), over {name.capitalize()}"
        yield about, times(found["ratios"][name]), "keras_step"


def pipeline() -> Iterator[Row]:
    """From a folder of pictures."""
    found = read("pipeline")["ratios"]
    for name, about in (
        ("alexnet over bare steps", "`alexnet` from JPEGs, over bare steps"),
        ("alexnet in memory over bare steps", "the same, pictures kept in memory"),
        ("owt over torchvision", "`alexnet_owt` from JPEGs, over torchvision's reference, fp32"),
        (
            "owt over its best",
            "over the better of that and bf16, channels_last, fused, in each round",
        ),
        ("owt over its best, memory kept", "and with an allocator that keeps freed memory"),
    ):
        yield about, times(found[name]), "pipeline"


def lenet() -> Iterator[Row]:
    """LeNet against the usual loop."""
    found = read("lenet_loop")
    took = figure(found["seconds_an_epoch"]["alexnet"], "s")
    speed = found["times_as_fast"]
    yield (
        f"LeNet-5, an epoch of 60,000, batch 64 ({took}), over the usual DataLoader loop",
        times(speed["loader"]),
        "lenet_loop",
    )
    yield "over a loop on tensors in memory", times(speed["tensors in memory"]), "lenet_loop"
    scored = read("lenet_scores")
    scores = scored["scores"]
    both = [f"{scores[side]['test_top1_mean']:.2%}" for side in ("alexnet", "usual")]
    yield (
        "test top-1 after 12 epochs, mean of 3 seeds, and the loop's",
        " ".join(both),
        "lenet_scores",
    )
    goals = [
        ", ".join("never" if s is None else f"{s:.0f}" for s in scores[side]["seconds_to_goal"])
        for side in ("alexnet", "usual")
    ]
    yield (
        f"seconds to a {scored['goal']}, 3 seeds, and the loop's",
        "; ".join(goals),
        "lenet_scores",
    )


def precision() -> Iterator[Row]:
    """bf16 against fp32."""
    for task, found in read("bf16")["tasks"].items():
        mean, low, high = (100 * value for value in found["bf16_minus_fp32"])
        yield (
            f"`{task}` trained in bf16, test top-1 less that in fp32, 3 seeds",
            f"**{mean:+.2f}** points (95% interval {low:+.2f} to {high:+.2f})",
            "bf16",
        )


def startup() -> Iterator[Row]:
    """Start-up."""
    found = read("startup")
    yield "`alexnet --help`", figure(found["seconds"]["alexnet --help"], "s", 1, 2), "startup"
    for name, ratio in found["predict_over_torch"].items():
        about = f"`alexnet predict` of one picture, `{name}`, over `import torch, torchvision`"
        yield about, times(ratio), "startup"


def curves() -> Iterator[Row]:
    """How cost grows."""
    found = read("curves")
    off = max(abs(value) for value in found["seconds_a_picture_off"].values())
    bent = max(abs(value) for value in found["off_the_line"].values())
    counts = sorted(map(int, found["epochs_by_pictures"]))
    about = f"an epoch of {counts[0]:,} to {counts[-1]:,} pictures: seconds a picture apart by"
    yield about, f"{off:.1%} at most", "curves"
    yield "the same, off a line with a constant a start by", f"{bent:.1%} at most", "curves"
    yield "its memory grows by", f"{found['memory_grown']:.1%}", "curves"


def views() -> Iterator[Row]:
    """Ten crops."""
    found = read("views")
    about = f"testing AlexNet on {found['pictures']:,} JPEGs by ten crops, over by the center"
    yield about, times(found["ratio"]), "views"


def ensembles() -> Iterator[Row]:
    """Several networks together."""
    found = read("ensembles")
    gain, mixed = found["gain"], found["lenet_with_alexnet"]
    low, high = (100 * value for value in gain["interval"])
    yield (
        f"three LeNets on Fashion-MNIST, test top-1 less the best one's, {gain['n']} triples",
        f"**{100 * gain['mean']:+.2f}** points (95% interval {low:+.2f} to {high:+.2f})",
        "ensembles",
    )
    each = " and ".join(f"{value:.2%}" for value in mixed["members"])
    yield f"LeNet and AlexNet together; alone {each}", f"{mixed['top1']:.2%}", "ensembles"


def gpu() -> Iterator[Row]:
    """On a GPU."""
    found = read("gpu")
    name = found["gpu"]
    for size in found["steps"]:
        about = f"{name}: `alexnet`, a training step of {size['batch_size']:,}"
        ours = figure(size["images_a_second"]["alexnet"], "images/s", digits=0)
        over = times(size["over"]["stock, advised"])
        yield f"{about} ({ours}), over stock modules: bf16, channels_last, fused", over, "gpu"
    for layer, about in (("lrn", "LRN, forward and backward, bf16"), ("pooling", "max-pooling")):
        yield f"{name}: {about}, over torch's", times(found["layers"][f"{layer}_over_torch"]), "gpu"
    for way, epoch in found["epochs"].items():
        share = f"{epoch['images_a_second']:,.0f} images/s, **{epoch['over_bare_steps']:.2f}**"
        about = f"{name}: an epoch with the paper's augmentation, {way}, over bare steps"
        yield about, share, "gpu"


SECTIONS = {
    lrn: "lrn",
    step: "step",
    keras: "keras_step",
    pipeline: "pipeline",
    lenet: "lenet_loop",
    precision: "bf16",
    startup: "startup",
    curves: "curves",
    views: "views",
    ensembles: "ensembles",
    gpu: "gpu",
}
"""Each with the script that it needs to have been run."""


def results() -> str:
    """The page of all claims."""
    lines = [
        "# Results",
        "",
        "Written by `scripts/make_results.py` from what the scripts beside this page measured. A",
        "ratio is the median of pairs measured in turn, in brackets its range; the GPU's rows of",
        "epochs are single runs. Two cores of the processor that is named were used. Whether the",
        "script's claims hold is in the last column; the claims, versions and all else are in",
        "`results/`.",
        "",
        "| what | times, or the figure | machine | script | script's claims hold |",
        "|---|---|---|---|---|",
    ]
    for section, script_name in SECTIONS.items():
        if not (RESULTS / f"{script_name}.json").is_file():
            continue
        for about, value, script in section():
            holds = "yes" if read(script)["holds"] else "**no**"
            lines.append(f"| {about} | {value} | {machine(script)} | `{script}.py` | {holds} |")
    return "\n".join([*lines, ""])


def machine(script: str) -> str:
    """What a script was run on, in two words."""
    told = read(script)["machine"]
    if script == "gpu":
        return "GPU"
    kind = told["processor"].replace("(R)", "").replace(" Processor", "")
    return f"{kind}, {told['precision']}" if "precision" in told else kind


def profile() -> str:
    """The step by kind of work, and its layers alone."""
    found = read("step")
    parts, seconds = found["profile_milliseconds"], found["seconds"]
    whole = sum(parts.values())
    lines = ["| kind | ms | share |", "|---|---:|---:|"]
    lines += [f"| {kind} | {took:.0f} | {took / whole:.1%} |" for kind, took in parts.items()]
    lines += ["", "| layer, forward and backward, alone | ms |", "|---|---:|"]
    layers = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
    lines += [f"| {name} | {1e3 * seconds[name]['median']:.0f} |" for name in layers]
    total = sum(1e3 * seconds[name]["median"] for name in layers)
    lines += [f"| together | {total:.0f} |"]
    lines += [f"| the step | {1e3 * seconds['alexnet']['median']:.0f} |"]
    return "\n".join(lines)


def growth() -> str:
    """The curves."""
    found = read("curves")
    lines = [
        f"Measured on two cores of: {found['machine']['processor']}.",
        "",
        "| pictures | seconds an epoch | a picture, ms | memory, GiB |",
        "|---:|---:|---:|---:|",
    ]
    for count, point in found["epochs_by_pictures"].items():
        each = 1e3 * point["seconds"] / point["pictures"]
        row = f"{int(count):,} | {point['seconds']:.2f} | {each:.3f} | {point['gigabytes']:.2f}"
        lines.append(f"| {row} |")
    for title, name in (
        ("batch, 227 pixels", "step_by_batch"),
        ("side in pixels, batch 32", "step_by_image_size"),
        ("threads, batch 32", "step_by_threads"),
    ):
        lines += ["", f"| {title} | ms a step | images/s | memory, GiB |", "|---:|---:|---:|---:|"]
        for key, point in found[name].items():
            took = f"{1e3 * point['seconds']:.0f} | {point['images_a_second']:.1f}"
            lines.append(f"| {key} | {took} | {point['gigabytes']:.2f} |")
    return "\n".join(lines)


def headline() -> str:
    """README's few."""
    ratios = read("step")["ratios"]
    rates = read("step")["images_a_second"]
    lenet_times = read("lenet_loop")["times_as_fast"]
    gpu_steps = read("gpu")["steps"]
    pipe = read("pipeline")["ratios"]
    rows = (
        (
            f"`alexnet`, a training step of 128 ({figure(rates['alexnet'], 'images/s')})",
            "the same of torch's modules, the better of fp32 and of bf16, channels_last, fused",
            ratios["stock best"],
        ),
        (
            "",
            "bf16, channels_last, fused, its memory kept from step to step as ours is",
            ratios["stock best, memory kept"],
        ),
        (
            "`alexnet_ungrouped`",
            "Keras on TensorFlow, mixed_bfloat16",
            read("keras_step")["ratios"]["keras mixed_bfloat16"],
        ),
        (
            "`alexnet_owt`, from JPEGs",
            "torchvision's reference pipeline and loop, the better of those two",
            pipe["owt over its best"],
        ),
        ("`lenet5_dense`, 60,000 pictures", "the usual DataLoader loop", lenet_times["loader"]),
        ("", "the loop over tensors in memory", lenet_times["tensors in memory"]),
        *(
            (
                f"H200: `alexnet`, a step of {size['batch_size']:,} "
                f"({size['images_a_second']['alexnet']['median']:,.0f} images/s)",
                "the same network of torch's modules: bf16, channels_last, fused optimizer",
                size["over"]["stock, advised"],
            )
            for size in (gpu_steps[0], gpu_steps[-1])
        ),
    )
    lines = ["| training | against | times as fast |", "|---|---|---:|"]
    lines += [f"| {mine} | {theirs} | {found['median']:.1f} |" for mine, theirs, found in rows]
    return "\n".join(lines)


def filled(path: Path, **tables: str) -> str:
    """A page with its tables between their markers."""
    page = path.read_text()
    for name, table in tables.items():
        begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        before, _, rest = page.partition(begin)
        _, _, after = rest.partition(end)
        page = f"{before}{begin}\n{table}\n{end}{after}"
    return page


def pages() -> dict[Path, str]:
    """What each page should hold."""
    return {
        PAGE: results(),
        PERFORMANCE: filled(PERFORMANCE, profile=profile(), growth=growth()),
        README: filled(README, speed=headline()),
    }


def main() -> None:
    """Write the pages."""
    for path, text in pages().items():
        path.write_text(text)


if __name__ == "__main__":
    main()
