from __future__ import annotations

import dataclasses
import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alexnet.data import BadImage
from alexnet.errors import UsageError
from alexnet.evaluation import Evaluation, Mistake, Tally
from alexnet.evaluation.corruptions import robustness
from alexnet.models import create_model
from alexnet.tasks.charts import confusion_bitmap, filter_bitmap
from alexnet.tasks.page import first_filters, setting_groups, stages_of
from alexnet.tasks.report import (
    comparison_table,
    most_confused,
    write_comparison,
    write_report,
)

HOSTILE = '<script src="https://example.com/x.js">alert(1)</script>'
LONG = "a class whose name is so long that no column of a table would ever hold it " * 2


def make_evaluation(num_classes: int, side: int = 28, channels: int = 1) -> Evaluation:
    random = np.random.default_rng(num_classes)
    count = 20 * num_classes
    labels = torch.tensor(random.integers(0, num_classes, count))
    logits = torch.tensor(random.normal(size=(count, num_classes)))
    logits[torch.arange(count), labels] += 2.5
    tally = Tally(num_classes, count)
    tally.add(logits, labels, torch.arange(count))
    names = (HOSTILE, LONG, *(f"class-{n}" for n in range(num_classes)))[:num_classes]
    pixels = random.integers(0, 255, (side, side, channels), dtype=np.uint8)
    mistakes = tuple(
        Mistake(f"{'deep/' * 30}{HOSTILE}.jpg", names[0], names[1], 0.99, pixels) for _ in range(3)
    )
    skipped = (BadImage("cat/broken.jpg", "truncated: it ends too early"),)
    return Evaluation.from_tally(tally, names, mistakes=mistakes, skipped=skipped)


def with_everything(evaluation: Evaluation) -> Evaluation:
    """As of an ensemble of two, with corruptions."""
    worse = dataclasses.replace(evaluation, top1=0.0)
    return dataclasses.replace(
        evaluation,
        members=((HOSTILE, evaluation), (LONG, worse)),
        robustness=robustness({"fog": [0.9, 0.8, 0.7, 0.6, 0.5]}),
    )


def make_history(epochs: int) -> list[dict[str, Any]]:
    return [
        {
            "epoch": n,
            "stage": "head" if n < 3 else "finetune",
            "train_loss": 2.0 / n,
            "train_top1": 1 - 0.5 / n,
            "val_loss": 2.2 / n,
            "val_top1": 0.9 - 0.5 / n,
        }
        for n in range(1, epochs + 1)
    ]


def make_report(path: Path, num_classes: int, **changes: Any) -> str:
    model = "lenet5" if num_classes <= 10 else "alexnet_cifar"
    content: dict[str, Any] = {
        "title": f"{model} on {HOSTILE}",
        "config": {"model": model, "settings": {"training": {"lr": 0.02, "clip": None}}},
        "history": make_history(6),
        "evaluation": make_evaluation(num_classes),
        "network": create_model(model, num_classes=num_classes),
    }
    write_report(path, **{**content, **changes})
    return path.read_text()


class Page(HTMLParser):
    """Collects what a page refers to, its ids, its texts, and checks that tags close."""

    VOID = frozenset(("meta", "link", "img", "rect", "image", "use", "path", "br"))

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.unnamed: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append(tag)
        self.ids += [value for name, value in attrs if name == "id" and value]
        self.links += [v for n, v in attrs if n in ("src", "href", "xlink:href", "action") and v]
        if (tag == "img" and not given.get("alt")) or (
            given.get("role") in ("img", "region") and not given.get("aria-label")
        ):
            self.unnamed.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


@pytest.mark.parametrize("num_classes", [2, 10, 30, 31, 120])
def test_a_report_is_whole_and_refers_to_nothing_outside(tmp_path: Path, num_classes: int) -> None:
    text = make_report(tmp_path / "report.html", num_classes)
    page = Page(text)
    assert page.open == []
    assert all(link.startswith(("data:", "#")) for link in page.links), page.links
    assert "script" not in page.tags
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    assert len(page.ids) == len(set(page.ids))
    used = {link[1:] for link in page.links if link.startswith("#")}
    used |= set(re.findall(r"url\(#([^)]*)\)", text))
    assert used <= set(page.ids)
    assert page.unnamed == []


def test_a_report_says_what_it_should(tmp_path: Path) -> None:
    evaluation = make_evaluation(10)
    text = make_report(tmp_path / "report.html", 10, evaluation=evaluation)
    assert f"{100 * evaluation.top1:.1f}%" in text
    assert html.escape(HOSTILE).replace("&quot;", "&#34;") in text
    assert "<script" not in text
    assert "cat/broken.jpg" in text
    assert "truncated: it ends too early" in text
    assert "training.lr" in text
    assert "fine-tuning" in text
    assert 'alt="The 6 filters of c1, 5x5 pixels each"' in text
    assert text.count('class="hit"') == 10
    assert "data:image/png" in text
    assert 'aria-label="Loss by epoch: training from 2 to 0.333; validation' in text


def test_a_report_says_how_sure_it_is_and_what_each_network_scores(tmp_path: Path) -> None:
    evaluation = with_everything(make_evaluation(10))
    text = make_report(tmp_path / "report.html", 10, evaluation=evaluation)
    assert f"{100 * evaluation.top1:.1f}% right: " in text
    assert "Confidence and accuracy: " in text
    assert "+0.00 points of top-1 against the best of them, &lt;script" in text
    assert "70.0% on average" in text
    assert re.search(r'fog</th><td[^>]*style="--share:90.0%">90.0%</td>', text)
    alone = make_report(tmp_path / "alone.html", 10, evaluation=make_evaluation(10))
    assert "Each network alone" not in alone
    assert "corruptions" not in alone


def test_a_report_without_epochs_mistakes_or_a_convolution(tmp_path: Path) -> None:
    perfect = Tally(2, 2)
    perfect.add(torch.eye(2) * 9, torch.arange(2), torch.arange(2))
    text = make_report(
        tmp_path / "report.html",
        2,
        history=[],
        evaluation=Evaluation.from_tally(perfect, ("cat", "dog")),
        network=torch.nn.Linear(2, 2),
    )
    assert Page(text).open == []
    for absent in ("Training</h2>", "Worst mistakes", "Filters of", "Most confused", "not used"):
        assert absent not in text
    assert "Of 2 pictures, 2 were named right (100.0%)." in text
    assert "most common mistake" not in text


def test_a_report_of_one_epoch_and_of_a_class_without_pictures(tmp_path: Path) -> None:
    tally = Tally(3, 2)
    tally.add(torch.eye(3)[:2], torch.tensor([0, 0]), torch.arange(2))
    evaluation = Evaluation.from_tally(tally, ("cat", "dog", "emu"))
    text = make_report(tmp_path / "r.html", 3, history=make_history(1), evaluation=evaluation)
    assert Page(text).open == []
    assert "–" in text


def test_a_report_for_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot write"):
        make_report(tmp_path / "file" / "report.html", 2)


def test_a_large_report_stays_small_enough_to_mail(tmp_path: Path) -> None:
    evaluation = make_evaluation(1000, side=224, channels=3)
    make_report(tmp_path / "report.html", 1000, evaluation=evaluation)
    assert (tmp_path / "report.html").stat().st_size < 2_000_000


def test_the_comparison_page(tmp_path: Path) -> None:
    rows = [
        {"name": "lenet5", "year": 1998, "parameters": 60_000, "top1": 0.98, "train_seconds": 20.0},
        {"name": "alexnet_owt", "year": 2014, "parameters": 61_100_840, "top1": 0.985,
         "train_seconds": 130.0, "input": [3, 224, 224], "initialized_from": "imagenet1k-features"},
    ]  # fmt: skip
    networks = {"lenet5": create_model("lenet5"), "alexnet_cifar": create_model("alexnet_cifar")}
    histories = {"lenet5": make_history(5), "alexnet_owt": make_history(5)}
    write_comparison(
        tmp_path / "c.html", rows, histories, networks=networks, notes=["Same digits."]
    )
    text = (tmp_path / "c.html").read_text()
    page = Page(text)
    assert page.open == []
    assert all(link.startswith(("data:", "#")) for link in page.links)
    assert page.unnamed == []
    for expected in ("lenet5 against alexnet_owt", "61,100,840", "98.50%", "2.2 min", "3x224x224"):
        assert expected in text
    assert text.count("Training loss by epoch: lenet5 from") == 1  # each by its own criterion
    assert text.count("Training loss by epoch: alexnet_owt from") == 1
    assert text.count("<svg") == 5
    assert 'aria-label="Top-1 against parameters: lenet5 98% at 6e+04; alexnet_owt' in text
    assert text.count("<figure") == 2


def test_comparison_table_keeps_the_order_and_leaves_out_what_no_row_has() -> None:
    table = comparison_table([{"top1": 0.5, "year": 1998}, {"year": 2012, "latency_ms": 1.25}])
    assert table == [
        ("year", ["1998", "2012"]),
        ("one picture takes", ["–", "1.2 ms"]),
        ("top-1", ["50.00%", "–"]),
    ]


def test_most_confused_counts_pairs() -> None:
    tally = Tally(3, 6)
    labels = torch.tensor([0, 0, 0, 1, 1, 2])
    guesses = torch.tensor([1, 1, 0, 2, 1, 2])
    tally.add(torch.nn.functional.one_hot(guesses, 3).double(), labels, torch.arange(6))
    pairs = most_confused(Evaluation.from_tally(tally, ("cat", "dog", "emu")))
    assert [(p["shown"], p["taken_for"], p["count"]) for p in pairs] == [
        ("cat", "dog", 2),
        ("dog", "emu", 1),
    ]
    assert pairs[0]["share"] == pytest.approx(2 / 3)


def test_confusion_bitmap_is_opaque_by_share() -> None:
    picture = confusion_bitmap(np.array([[4, 0], [1, 0]]))
    assert picture[..., 3].tolist() == [[255, 0], [255, 0]]
    assert picture[0, 0, 2] > picture[0, 0, 0]
    assert picture[1, 0, 0] > picture[1, 0, 2]


def test_filter_bitmap_lays_filters_out_in_rows() -> None:
    kernels = np.zeros((5, 3, 2, 2), dtype=np.float32)
    kernels[4, 0] = 1
    sheet = filter_bitmap(kernels, columns=4)
    assert sheet.shape == (5, 11, 4)
    assert sheet[3, 0].tolist() == [255, 0, 0, 255]
    assert sheet[3, 3].tolist() == [0, 0, 0, 0]


def test_first_filters_show_caffe_s_channels_as_rgb() -> None:
    network = torch.nn.Conv2d(3, 1, 3)
    with torch.no_grad():
        network.weight.zero_()[0, 0] = 1
    rgb, bgr = first_filters(network), first_filters(network, "bgr")
    assert rgb
    assert bgr
    assert rgb["picture"] != bgr["picture"]
    assert first_filters(torch.nn.Linear(3, 3)) is None


def test_stages_are_named_where_a_training_has_several() -> None:
    assert stages_of(make_history(2)) == []
    assert stages_of(make_history(4)) == [(1, "head"), (3, "fine-tuning")]


def test_settings_are_grouped_and_in_plain_words() -> None:
    groups = setting_groups(
        {"model": "lenet5", "classes": ["a"], "metrics": {"x": 1}, "resumed": False,
         "settings": {"training": {"lr": 0.1, "clip": None}, "augment": {"scale": [0.5, 1.0]}}}
    )  # fmt: skip
    assert groups == [
        {"name": "run", "rows": [("model", "lenet5"), ("resumed", "no")]},
        {
            "name": "settings",
            "rows": [("training.lr", "0.1"), ("training.clip", "–"), ("augment.scale", "0.5, 1")],
        },
    ]


WRAPPER = """<!doctype html><body><script>
const found = [];
function look(width) {
  return new Promise(resolve => {
    const frame = document.createElement("iframe");
    frame.style = `width:${width}px;height:900px;border:0`;
    frame.onload = () => {
      const page = frame.contentDocument.documentElement;
      const requests = frame.contentWindow.performance.getEntriesByType("resource");
      const broken = [...frame.contentDocument.images].filter(image => !image.naturalWidth);
      found.push({width, scroll: page.scrollWidth, height: page.scrollHeight,
        requests: requests.map(one => one.name).filter(name => !name.startsWith("data:")),
        broken: broken.length});
      resolve();
    };
    frame.srcdoc = PAGE;
    document.body.append(frame);
  });
}
const PAGE = %s;
look(390).then(() => look(1280)).then(() => {
  document.body.textContent = "FOUND" + JSON.stringify(found) + "END";
});
</script></body>"""


BROWSER = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--window-size=1400,1000",
    "--virtual-time-budget=5000",
    "--dump-dom",
)


@pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not installed")
@pytest.mark.parametrize("kind", ["few", "many", "comparison"])
def test_in_a_browser_nothing_overflows_is_fetched_or_complains(tmp_path: Path, kind: str) -> None:
    report = tmp_path / "report.html"
    if kind == "comparison":
        rows = [{"name": LONG, "paper": LONG}, {"name": "alexnet", "authors": LONG, "year": 2012}]
        histories = {LONG: make_history(4), "alexnet": make_history(4)}
        networks = {"lenet5": create_model("lenet5")}
        write_comparison(report, rows, histories, networks=networks)
    else:
        evaluation = with_everything(
            make_evaluation(24 if kind == "few" else 100, side=200, channels=3)
        )
        make_report(report, len(evaluation.classes), evaluation=evaluation)
    # "</" ends a script wherever it stands.
    quoted = json.dumps(report.read_text()).replace("</", "<\\/")
    (tmp_path / "wrapper.html").write_text(WRAPPER % quoted)
    line = ["chromium", *BROWSER, f"--user-data-dir={tmp_path / 'profile'}"]
    line.append((tmp_path / "wrapper.html").as_uri())
    done = subprocess.run(line, capture_output=True, text=True, timeout=120)
    match = re.search("FOUND(.*)END", done.stdout)
    assert match, done.stdout[-500:] + done.stderr[-2000:]
    found = json.loads(html.unescape(match[1]))
    assert [one["width"] for one in found] == [390, 1280]
    for one in found:
        assert one["scroll"] <= one["width"]
        assert one["height"] > 900
        assert one["requests"] == []
        assert one["broken"] == 0
    assert "CONSOLE" not in done.stderr, done.stderr[-2000:]
