"""Rewrite benchmarks/RESULTS.md, and tables of other pages, from what was measured.

    make bench                      # measures
    python scripts/make_results.py  # reads benchmarks/results/<machine>/*.json

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

MACHINES = {
    "amd-epyc-zen-5-bf16": "AMD EPYC, Zen 5",
    "amd-epyc-bf16": "AMD EPYC, Zen 4",
    "intel-xeon-fp32": "Intel Xeon without AMX",
    "intel-xeon-bf16": "Intel Xeon with AMX (two of sixteen cores, PyTorch 2.11)",
    "nvidia-h200": "NVIDIA H200",
}
"""Folders of ``results/``: a processor is named with the precision that is its default."""
MAIN, _, OTHER, _, GPU = MACHINES

Row = tuple[str, str, str]
"""What, the figure, the script."""


def read(machine: str, name: str) -> dict[str, Any]:
    """What a script wrote."""
    found: dict[str, Any] = json.loads(record(machine, name).read_text())
    return found


def record(machine: str, name: str) -> Path:
    """Where a script writes."""
    return RESULTS / machine / f"{name}.json"


def times(found: dict[str, Any], digits: int = 2) -> str:
    """A ratio's median and range."""
    return (
        f"**{found['median']:.{digits}f}** ({found['least']:.{digits}f} to "
        f"{found['most']:.{digits}f}, n = {found['n']})"
    )


def figure(found: dict[str, Any], unit: str, scale: float = 1.0, digits: int = 1) -> str:
    """A median with its unit."""
    return f"{found['median'] * scale:.{digits}f} {unit}"


def lrn(machine: str) -> Iterator[Row]:
    """Local response normalization."""
    found = read(machine, "lrn")
    ratios, took = found["times_faster_than"], found["milliseconds"]
    for name, about in (
        ("default bf16", "LRN, forward and backward, in bf16"),
        ("default fp32", "LRN in fp32"),
        ("pieces bf16", "LRN without a compiler, in bf16"),
        ("pieces fp32", "LRN without a compiler, in fp32"),
    ):
        took_now = figure(took[name], "ms")
        yield f"{about} ({took_now}), over torch's in fp32", times(ratios["torch"][name], 1), "lrn"
        for side, said in (("memory kept", "with freed memory kept"), ("compiled", "compiled")):
            if f"torch, {side}" in ratios:
                value = times(ratios[f"torch, {side}"][name], 1)
                yield f"the same, torch {said}", value, "lrn"


def step(machine: str) -> Iterator[Row]:
    """The training step."""
    found = read(machine, "step")
    ratios, rates = found["ratios"], found["images_a_second"]
    ours = figure(rates["alexnet"], "images/s")
    advised = "over the best of that and channels_last, fused, in bf16"
    if "stock, advised, fp32" in rates:
        advised += " and fp32"
    for name, about in (
        ("stock fp32", f"`alexnet`, a training step of 128 ({ours}), over stock modules in fp32"),
        ("stock best", advised),
        ("stock best, memory kept", "the same, with an allocator that keeps freed memory"),
        ("stock best, compiled", "the same, compiled by `torch.compile`"),
        ("lrn", "the share of its speed without normalization"),
        ("floor", "torch's convolutions and linear layers, each alone, over the step"),
        ("own layers", "the package's, each alone, as a share of the step"),
    ):
        if name in ratios:
            yield about, times(ratios[name]), "step"


def keras(machine: str) -> Iterator[Row]:
    """Keras."""
    found = read(machine, "keras_step")
    ours = figure(found["images_a_second"]["alexnet_ungrouped"], "images/s")
    for name, ratio in found["ratios"].items():
        about = f"`alexnet_ungrouped`, a training step of 128 ({ours}), over {name.capitalize()}"
        yield about, times(ratio), "keras_step"


def pipeline(machine: str) -> Iterator[Row]:
    """From a folder of pictures."""
    found = read(machine, "pipeline")["ratios"]
    kept = "owt over its best, memory kept"
    best = "over the best of that and channels_last, fused, in bf16"
    if kept not in found:
        best += " and fp32, memory and workers kept"
    for name, about in (
        ("alexnet over bare steps", "`alexnet` from JPEGs decoded anew, over bare steps"),
        ("alexnet in memory over bare steps", "kept in memory, as by default up to 4 GB"),
        ("alexnet, prepared, over bare steps", "from what `alexnet prepare --format raw` made"),
        ("owt over torchvision", "`alexnet_owt` from JPEGs, over torchvision's reference, fp32"),
        ("owt over its best", best),
        (kept, "and with an allocator that keeps freed memory"),
    ):
        if name in found:
            yield about, times(found[name]), "pipeline"


def decoding(machine: str) -> Iterator[Row]:
    """Pictures alone."""
    found = read(machine, "decoding")
    for quality, ratios in found["ratios"].items():
        took = found["milliseconds_a_picture"][quality]
        size = f"a JPEG of 500x375, {found['bytes_a_picture'][quality] / 1000:.0f} KB"
        for arm, what, over in (
            ("alexnet", "decoded", "decode over simplejpeg"),
            ("square", "decoded and resized", "square over simplejpeg"),
        ):
            about = f"{size}, {what} ({figure(took[arm], 'ms', digits=2)}), over simplejpeg's"
            yield about, times(ratios[over]), "decoding"


def lenet(machine: str) -> Iterator[Row]:
    """LeNet against the usual loop."""
    found = read(machine, "lenet_loop")
    took = figure(found["seconds_an_epoch"]["alexnet"], "s")
    speed = found["times_as_fast"]
    yield (
        f"LeNet-5, an epoch of 60,000, batch 64 ({took}), over the usual DataLoader loop",
        times(speed["loader"]),
        "lenet_loop",
    )
    tuned = "over that loop tuned for two cores: workers that stay, one thread for the network"
    if "loader, tuned" in speed:
        yield tuned, times(speed["loader, tuned"]), "lenet_loop"
    yield "over a loop on tensors in memory", times(speed["tensors in memory"]), "lenet_loop"


def scores(machine: str) -> Iterator[Row]:
    """What LeNet scores."""
    scored = read(machine, "lenet_scores")
    sides = scored["scores"]
    both = [f"{sides[side]['test_top1_mean']:.2%}" for side in ("alexnet", "usual")]
    yield (
        "test top-1 after 12 epochs, mean of 3 seeds, and the loop's",
        " ".join(both),
        "lenet_scores",
    )
    goals = [
        ", ".join("never" if s is None else f"{s:.0f}" for s in sides[side]["seconds_to_goal"])
        for side in ("alexnet", "usual")
    ]
    yield (
        f"seconds to a {scored['goal']}, 3 seeds, and the loop's",
        "; ".join(goals),
        "lenet_scores",
    )


def precision(machine: str) -> Iterator[Row]:
    """bf16 against fp32."""
    measured = read(machine, "bf16")
    for task, found in measured["tasks"].items():
        mean, low, high = (100 * value for value in found["bf16_minus_fp32"])
        runs = [run for run in measured["runs"] if run["task"] == task]
        seeds, each = len({run["seed"] for run in runs}), runs[0]["test_images"]
        yield (
            f"`{task}` in bf16, test top-1 less that in fp32, {seeds} seeds, {each:,} tested",
            f"**{mean:+.2f}** points (95% interval {low:+.2f} to {high:+.2f})",
            "bf16",
        )


def startup(machine: str) -> Iterator[Row]:
    """Start-up."""
    found = read(machine, "startup")
    yield "`alexnet --help`", figure(found["seconds"]["alexnet --help"], "s", 1, 2), "startup"
    for name, ratio in found["predict_over_torch"].items():
        about = f"`alexnet predict` of one picture, `{name}`, over `import torch, torchvision`"
        yield about, times(ratio), "startup"


def curves(machine: str) -> Iterator[Row]:
    """How cost grows."""
    found = read(machine, "curves")
    off = max(abs(value) for value in found["seconds_a_picture_off"].values())
    bent = max(abs(value) for value in found["off_the_line"].values())
    counts = sorted(map(int, found["epochs_by_pictures"]))
    about = f"an epoch of {counts[0]:,} to {counts[-1]:,} pictures: seconds a picture apart by"
    yield about, f"{off:.1%} at most", "curves"
    yield "the same, off a line with a constant a start by", f"{bent:.1%} at most", "curves"
    yield "its memory grows by", f"{found['memory_grown']:.1%}", "curves"


def views(machine: str) -> Iterator[Row]:
    """Ten crops."""
    found = read(machine, "views")
    about = f"testing AlexNet on {found['pictures']:,} JPEGs by ten crops, over by the center"
    yield about, times(found["ratio"]), "views"


def ensembles(machine: str) -> Iterator[Row]:
    """Several networks together."""
    found = read(machine, "ensembles")
    gain, mixed = found["gain"], found["lenet_with_alexnet"]
    low, high = (100 * value for value in gain["interval"])
    yield (
        f"three LeNets on Fashion-MNIST, test top-1 less the best one's, {gain['n']} triples",
        f"**{100 * gain['mean']:+.2f}** points (95% interval {low:+.2f} to {high:+.2f})",
        "ensembles",
    )
    each = " and ".join(f"{value:.2%}" for value in mixed["members"])
    yield f"LeNet and AlexNet together; alone {each}", f"{mixed['top1']:.2%}", "ensembles"


def gpu(machine: str) -> Iterator[Row]:
    """On a GPU."""
    found = read(machine, "gpu")
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
    lrn: ("lrn",),
    step: ("step",),
    keras: ("keras_step",),
    pipeline: ("pipeline",),
    decoding: ("decoding",),
    lenet: ("lenet_loop",),
    scores: ("lenet_scores",),
    precision: ("bf16",),
    startup: ("startup",),
    curves: ("curves",),
    views: ("views",),
    ensembles: ("ensembles",),
    gpu: ("gpu",),
}
"""Each with the scripts that it needs to have been run."""


def results() -> str:
    """The page of all claims."""
    lines = [
        "# Results",
        "",
        "Written by `scripts/make_results.py` from what the scripts beside this page measured. A",
        "ratio is the median of pairs measured in turn, in brackets its range; the GPU's rows of",
        "epochs are single runs. On processors two cores were used. Whether all of the script's",
        "claims hold is in the last column; the claims, versions and all else are in `results/`.",
        "Where no commit is named, it was not recorded then. Until the 26th of November the",
        "package set `GOMP_SPINCOUNT=1000` for itself, which the figures of Zen 4 include.",
    ]
    folders = sorted(path.name for path in RESULTS.iterdir() if path.is_dir())
    for machine in dict.fromkeys([*MACHINES, *folders]):
        lines += ["", f"## {MACHINES.get(machine, machine)}", ""]
        lines += ["| what | times, or the figure | script | measured | its claims hold |"]
        lines += ["|---|---|---|---|---|"]
        for section, needed in SECTIONS.items():
            if all(record(machine, name).is_file() for name in needed):
                lines += [
                    f"| {about} | {value} | `{script}.py` | {when(machine, script)} |"
                    for about, value, script in section(machine)
                ]
    return "\n".join([*lines, ""])


def when(machine: str, script: str) -> str:
    """Date and commit of a measurement, and whether its claims hold."""
    found = read(machine, script)
    told = found.get("measured", {"date": "2026-11, before the 26th", "commit": None})
    commit = f", `{told['commit']}`" if told["commit"] else ""
    return f"{told['date']}{commit} | {'yes' if found['holds'] else '**no**'}"


def profile() -> str:
    """The step by kind of work, and its layers alone, on two kinds of processors."""
    return "\n\n".join(
        f"{MACHINES[machine]}, {precision}:\n\n{_profile(machine)}"
        for machine, precision in ((MAIN, "bf16"), (OTHER, "fp32"))
    )


def _profile(machine: str) -> str:
    """Those of one; a convolution of the package's own in place of torch's where there is one."""
    found = read(machine, "step")
    parts, seconds = found["profile_milliseconds"], found["seconds"]
    whole = sum(parts.values())
    lines = ["| kind | ms | share |", "|---|---:|---:|"]
    lines += [f"| {kind} | {took:.0f} | {took / whole:.1%} |" for kind, took in parts.items()]
    layers = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
    torchs = {name: 1e3 * seconds[name]["median"] for name in layers}
    own = {
        name: 1e3 * seconds.get(f"{name}, the package's", seconds[name])["median"]
        for name in layers
    }
    lines += ["", "| layer, forward and backward, alone | torch's, ms | the package's, ms |"]
    lines += ["|---|---:|---:|"]
    lines += [f"| {name} | {torchs[name]:.0f} | {own[name]:.0f} |" for name in layers]
    lines += [f"| together | {sum(torchs.values()):.0f} | {sum(own.values()):.0f} |"]
    lines += [f"| the step | | {1e3 * seconds['alexnet']['median']:.0f} |"]
    return "\n".join(lines)


def growth() -> str:
    """The curves."""
    found = read(MAIN, "curves")
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
    """README's few, on two kinds of processors and a GPU."""
    rows = (
        ("`alexnet`, a step of 128", "torch's modules in fp32, as they come", "step", "stock fp32"),
        ("", "the best of that and channels_last, fused, bf16 or fp32", "step", "stock best"),
        ("", "those with freed memory kept, as ours", "step", "stock best, memory kept"),
        ("", "those compiled by `torch.compile`", "step", "stock best, compiled"),
        (
            "`alexnet_ungrouped`, a step of 128",
            "Keras on TensorFlow, the best of mixed_bfloat16 and float32",
            "keras_step",
            "keras best",
        ),
        (
            "`alexnet_owt`, from JPEGs",
            "torchvision's reference pipeline and loop",
            "pipeline",
            "owt over torchvision",
        ),
        ("", "those at their best settings, memory kept", "pipeline", "owt over its best"),
        ("`lenet5_dense`, 60,000 pictures", "the usual DataLoader loop", "lenet_loop", "loader"),
        ("", "that loop tuned for two cores", "lenet_loop", "loader, tuned"),
        ("", "a loop over tensors in memory", "lenet_loop", "tensors in memory"),
    )
    lines = [
        f"| training | against | {MACHINES[MAIN]} | {MACHINES[OTHER]} |",
        "|---|---|---:|---:|",
    ]
    for mine, theirs, script, name in rows:
        cells = [_headline(machine, script, name) for machine in (MAIN, OTHER)]
        lines.append(f"| {mine} | {theirs} | {' | '.join(cells)} |")
    sizes = read(GPU, "gpu")["steps"]
    gains = " and ".join(f"{size['over']['stock, advised']['median']:.1f}" for size in sizes[::2])
    rates = sizes[-1]["images_a_second"]["alexnet"]["median"]
    lines += [
        "",
        f"On one H200 (up to {rates:,.0f} images/s) a step of 128 and of 1,024 is {gains} times as",
        "fast as that of the same network of torch's modules in bf16, channels_last, fused.",
    ]
    return "\n".join(lines)


def _headline(machine: str, script: str, name: str) -> str:
    """A cell of it; a dash where it was not measured."""
    if not record(machine, script).is_file():
        return "-"
    found = read(machine, script)
    ratios = found.get("ratios", found.get("times_as_fast"))
    assert ratios is not None
    names = {  # as earlier records have them
        "keras best": (name, "keras mixed_bfloat16"),
        "owt over its best": ("owt over its best, memory kept", name),
    }.get(name, (name,))
    return next((f"{ratios[n]['median']:.1f}" for n in names if n in ratios), "-")


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
