"""The Hugging Face Hub: files of a repository, and the three methods that people know.

``huggingface_hub`` is imported where it is used, which keeps it out of ``import alexnet.models``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Self, cast

from alexnet.errors import FailedError, UsageError

PREFIX = "hf:"
CARD = """---
library_name: alexnet
pipeline_tag: image-classification
tags:
- alexnet
- image-classification
---

A network of the Python package `alexnet`, by the name `{name}`.

```python
import alexnet

classifier = alexnet.Classifier.load("hf:OWNER/NAME")
```
"""


def hub_file(repository: str, filename: str, **options: Any) -> Path:
    """The local copy of a file of a Hub repository, downloaded when it is not there yet.

    Args:
        repository: ``"OWNER/NAME"`` or ``"OWNER/NAME@REVISION"``.
        filename: path inside the repository.
        options: ``token``, ``cache_dir``, ``revision``, ``force_download``, ``local_files_only``,
            as in ``huggingface_hub.hf_hub_download``.

    Raises:
        UsageError: no such repository, revision or file, or a name that cannot be one.
        FailedError: the Hub could not be reached.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HFValidationError,
        HTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    name, _, revision = repository.partition("@")
    options = {"revision": revision or None, **options}
    try:
        return Path(hf_hub_download(name, filename, **options))
    except LocalEntryNotFoundError as error:
        raise FailedError(
            f"cannot reach the Hugging Face Hub for {name}/{filename}: check the connection, or "
            f"download the repository elsewhere and give its folder"
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise UsageError(
            f"no repository {name!r} on the Hugging Face Hub: check the name (OWNER/NAME), or log "
            f"in with 'hf auth login' where it is private"
        ) from error
    except RevisionNotFoundError as error:
        raise UsageError(f"{name} has no revision {revision!r}: check the name") from error
    except EntryNotFoundError as error:
        raise UsageError(
            f"{name} on the Hugging Face Hub has no {filename}: it was not saved by alexnet"
        ) from error
    except (HTTPError, OSError) as error:
        reason = _first_line(error)
        raise FailedError(f"cannot download {name}/{filename} ({reason}): try again") from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


class HubMixin:
    """``from_pretrained``, ``save_pretrained`` and ``push_to_hub``; the files are a run folder's.

    The methods have the arguments of ``huggingface_hub.ModelHubMixin``, whose ``push_to_hub`` does
    the upload.
    """

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **options: Any
    ) -> Self:
        """Load a network from a run folder, a Hub repository or weights by name.

        Args:
            pretrained_model_name_or_path: a folder, ``"OWNER/NAME"`` on the Hub, or the name of
                weights that come with the package.
            options: of the download (see :func:`hub_file`).

        Returns:
            The network in evaluation mode.

        Raises:
            UsageError: nothing of that name, or a network of another class.
        """
        from alexnet.models.pretrained import load_run
        from alexnet.models.weights import list_weights

        source = os.fspath(pretrained_model_name_or_path)
        named = {f"{weights.model}/{weights.name}" for weights in list_weights()}
        if source.count("/") == 1 and source not in named and not Path(source).exists():
            source = PREFIX + source.removeprefix(PREFIX)
        network = load_run(source, **options).network
        if not isinstance(network, cls):
            raise UsageError(
                f"{source} holds a {type(network).__name__}, not a {cls.__name__}: "
                f"load it with {type(network).__name__}.from_pretrained"
            )
        return network

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        *,
        config: dict[str, Any] | None = None,
        repo_id: str | None = None,
        push_to_hub: bool = False,
        model_card_kwargs: dict[str, Any] | None = None,
        **push_to_hub_options: Any,
    ) -> str | None:
        """Save the network as a run folder, with a model card where there is none.

        Args:
            save_directory: the folder, made when it is not there.
            config: further entries of ``config.json``.
            repo_id: the Hub repository, by default the folder's name.
            push_to_hub: whether to upload as well.
            model_card_kwargs: taken for ``ModelHubMixin``'s sake; the card has no blanks to fill.
            push_to_hub_options: of :meth:`push_to_hub`.

        Returns:
            The address of the commit, where it was uploaded.
        """
        from alexnet.files import write_text
        from alexnet.models.pretrained import save_run

        folder = Path(save_directory)
        save_run(folder, cast(Any, self), extra=config)
        if not (folder / "README.md").exists():
            write_text(folder / "README.md", CARD.format(name=cast(Any, self).model_name))
        if not push_to_hub:
            return None
        return self.push_to_hub(repo_id or folder.name, **push_to_hub_options)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Upload the network to the Hub.

        Args:
            repo_id: ``"OWNER/NAME"``; made when it is not there.
            options: ``private``, ``token``, ``branch``, ``create_pr``, ``commit_message`` and the
                others of ``huggingface_hub.ModelHubMixin.push_to_hub``.

        Returns:
            The address of the commit.

        Raises:
            FailedError: the Hub refused or could not be reached.
        """
        from huggingface_hub import ModelHubMixin
        from huggingface_hub.errors import HTTPError

        options.setdefault("commit_message", "Upload a network of the package alexnet")
        try:
            # All it asks of the network is save_pretrained, which is above.
            return str(ModelHubMixin.push_to_hub(cast(Any, self), repo_id, **options))
        except (HTTPError, OSError) as error:  # the connection's errors and the Hub's own
            reason = _first_line(error)
            raise FailedError(
                f"cannot upload to {repo_id} ({reason}): log in with 'hf auth login', or check the "
                f"name and the connection"
            ) from error
