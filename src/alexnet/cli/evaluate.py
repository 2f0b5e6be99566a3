"""``alexnet evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from alexnet.cli.options import Common


def evaluate(
    run: str,
    /,
    *,
    data: Annotated[str, Parameter(alias="-d")],
    split: Literal["auto", "train", "val", "test"] = "auto",
    batch_size: int = 256,
    report: Path | None = None,
    common: Common = Common(),
) -> int:
    """Measure a classifier on labeled pictures: top-1, top-5, each class, and what it confuses.

    Leaves with 1 when some pictures could not be read.

    For example:

        alexnet evaluate runs/photos --data photos/
        alexnet evaluate lenet5/mnist-5k --data mnist-5k --json

    Args:
        run: A run folder, weights by name (lenet5/fashion-mnist), or hf:OWNER/NAME.
        data: A folder with one folder a class, or a data set by name.
        split: Which part of the data; auto is the test part, else the validation part, else all.
        batch_size: Pictures at a time.
        report: Also write this HTML page, with the confusion matrix and the worst
            mistakes as pictures.
    """
    import alexnet
    from alexnet.cli.output import emit, pairs, percent, say, table

    classifier = alexnet.Classifier.load(run)
    evaluation = alexnet.evaluate(classifier, data, split=split, batch_size=batch_size)
    if report:
        from alexnet.tasks.report import write_report

        config = {"run": run, "data": data, "split": split}
        write_report(
            report,
            title=f"{run} on {data}",
            config=config,
            history=[],
            evaluation=evaluation,
            network=classifier.network,
        )
    code = 1 if evaluation.skipped else 0
    if common.json:
        emit(evaluation.to_dict())
        return code
    pairs(
        {
            "pictures": evaluation.images,
            "top-1": percent(evaluation.top1),
            "top-5": percent(evaluation.top5),
            "balanced accuracy": percent(evaluation.balanced_accuracy),
            "loss": evaluation.loss,
            "skipped": len(evaluation.skipped),
        }
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
    for bad in evaluation.skipped:
        say(f"skipped {bad.name}: {bad.reason}")
    return code
