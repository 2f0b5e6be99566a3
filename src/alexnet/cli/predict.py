"""``alexnet predict``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from alexnet.cli.options import STANDARD_INPUT, Common

if TYPE_CHECKING:
    from alexnet import Prediction


def predict(
    run: str,
    images: Annotated[tuple[str, ...], Parameter(required=True)],
    /,
    *,
    top: Annotated[int, Parameter(alias="-k")] = 5,
    batch_size: int = 32,
    common: Common = Common(),
) -> int:
    """Say what is on pictures.

    A picture that cannot be read gets an error of its own and does not stop the rest; the command
    then leaves with 1.

    For example:

        alexnet predict runs/photos new.jpg
        alexnet predict runs/photos holiday/ 'more/*.png' --json
        find . -name '*.jpg' | alexnet predict runs/photos -

    Args:
        run: A run folder, weights by name (lenet5/mnist-5k), or hf:OWNER/NAME.
        images: Files, folders, patterns, or - for a list of files on standard input, one a line.
        top: How many answers a picture gets.
        batch_size: Pictures at a time.
    """
    import dataclasses

    from alexnet import Classifier
    from alexnet.cli.output import emit, flatten, say
    from alexnet.tasks.inputs import expand

    refused = 0
    classifier = Classifier.load(run)
    paths = expand(("-" if name == STANDARD_INPUT else name for name in images), sys.stdin)
    for path, answer in classifier.predict_files(paths, top=top, batch_size=batch_size):
        refused += isinstance(answer, str)
        if common.json:
            if isinstance(answer, str):
                emit({"image": str(path), "error": answer})
            else:
                answers = [
                    {name: value for name, value in dataclasses.asdict(one).items() if value != ""}
                    for one in answer
                ]
                emit({"image": str(path), "predictions": answers})
        elif isinstance(answer, str):
            say(flatten(f"{path}  error: {answer}"))
        else:
            answers = (f"{_called(one)} {one.probability:.1%}" for one in answer)
            say(flatten(f"{path}  {', '.join(answers)}"))
    return 1 if refused else 0


def _called(answer: Prediction) -> str:
    """The class, and what it is called where its name is a code."""
    return f"{answer.label} ({answer.description})" if answer.description else answer.label
