"""``alexnet evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from alexnet.cli.options import Common
from alexnet.errors import UsageError


def evaluate(
    *runs: str,
    data: Annotated[str | None, Parameter(alias="-d", show_default=False)] = None,
    split: Literal["auto", "train", "val", "test"] = "auto",
    views: Literal["center", "ten-crop", "multi-scale"] = "center",
    batch_size: int = 256,
    corruptions: bool = False,
    report: Path | None = None,
    common: Common = Common(),
) -> int:
    """Measure a classifier on labeled pictures: top-1, top-5, each class, and what it confuses.

    Several runs are an ensemble: their probabilities are averaged. Leaves with 1 when some
    pictures could not be read.

    For example:

        alexnet evaluate runs/photos photos/
        alexnet evaluate lenet5/mnist-5k --data mnist-5k --json
        alexnet evaluate runs/a runs/b runs/c photos/ --views ten-crop

    Args:
        runs: Run folders, weights by name (lenet5/fashion-mnist), or hf:OWNER/NAME; the data may
            follow them.
        data: A folder with one folder a class, or a data set by name.
        split: Which part of the data; auto is the test part, else the validation part, else all.
        views: What of a picture is looked at: its center; the paper's ten crops (corners and
            center, mirrored too), whose probabilities are averaged; or ten at each of three scales.
        batch_size: Views at a time.
        corruptions: Also score the pictures with nine common corruptions of five severities.
        report: Also write this HTML page, with the confusion matrix and the worst
            mistakes as pictures.
    """
    import alexnet
    from alexnet.cli.output import emit, pairs, percent, say, table

    names, told = list(runs), data
    if told is None and len(names) > 1:
        told = names.pop()
    if not names or told is None:
        raise UsageError("give a run and the data: alexnet evaluate RUN DATA")
    loaded = {name: alexnet.Classifier.load(name) for name in names}
    evaluation = alexnet.evaluate(
        loaded, told, split=split, views=views, batch_size=batch_size, corruptions=corruptions
    )
    if report:
        from alexnet.tasks.report import write_report

        title = " + ".join(names)
        write_report(
            report,
            title=f"{title} on {told}",
            config={"run": title, "data": told, "split": split, "views": views},
            history=[],
            evaluation=evaluation,
            network=loaded[names[0]].network,
        )
    code = 0 if all(bad.hidden for bad in evaluation.skipped) else 1
    if common.json:
        emit(evaluation.to_dict())
        return code

    def with_interval(share: float, name: str) -> str:
        low, high = evaluation.intervals.get(name, (share, share))
        return f"{percent(share)}  ({percent(low)} to {percent(high)}, 95%)"

    pairs(
        {
            "pictures": evaluation.images,
            "views": evaluation.views,
            "top-1": with_interval(evaluation.top1, "top1"),
            "top-5": with_interval(evaluation.top5, "top5"),
            "balanced accuracy": percent(evaluation.balanced_accuracy),
            "loss": evaluation.loss,
            "calibration error": percent(evaluation.calibration_error),
            "skipped": len(evaluation.skipped),
        }
    )
    if gain := evaluation.gain:
        say()
        rows = [
            (name, percent(one.top1), percent(one.top5), one.loss)
            for name, one in evaluation.members
        ]
        table(["network", "top-1", "top-5", "loss"], rows, title="Each alone")
        low, high = (100 * end for end in gain["interval"])
        say(
            f"together {100 * gain['top1']:+.2f} points of top-1 against {gain['over']} "
            f"(95%: {low:+.2f} to {high:+.2f}, paired)"
        )
    say()
    columns = ["class", "pictures", "recall", "precision"]
    table(
        columns,
        (
            (row["class"], row["images"], percent(row["recall"]), percent(row["precision"]))
            for row in evaluation.per_class
        ),
    )
    if evaluation.robustness:
        say()
        rows = [
            (kind, *map(percent, values)) for kind, values in evaluation.robustness["top1"].items()
        ]
        severities = [f"severity {n}" for n in range(1, 6)]
        table(["corruption", *severities], rows, title="Top-1 under common corruptions")
        say(f"mean of all  {percent(evaluation.robustness['mean'])}")
    for bad in evaluation.skipped:
        say(f"skipped {bad.name}: {bad.reason}")
    return code
