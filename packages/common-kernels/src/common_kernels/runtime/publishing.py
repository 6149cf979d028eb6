# SPDX-License-Identifier: Apache-2.0
"""Model cards, and folders that go to the hub."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import metadata
from pathlib import Path

__all__ = ["CardOptions", "find_repository", "push_folder", "write_card"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CardOptions:
    """What a model card says of a kind of models.

    Attributes:
        title: Name of the kind of models.
        library: Package that loads them.
        paper: Address of the paper.
        pipeline_tag: Task, as the hub names it.
        usage: Python code that loads a model; ``{repo_id}`` is replaced.
        tags: Further words by which the hub finds it.
        licence: Licence of the weights, as the hub names it.
    """

    title: str
    library: str
    paper: str
    pipeline_tag: str
    usage: str
    tags: Sequence[str] = ()
    licence: str = "apache-2.0"


def write_card(
    folder: str | Path,
    options: CardOptions,
    *,
    repo_id: str = "owner/name",
    base_model: str | None = None,
    metrics: Mapping[str, float | str] | None = None,
) -> Path:
    """Write ``README.md``, the model card of a folder.

    Args:
        folder: Folder of the model.
        options: What it says of this kind of models.
        repo_id: Where the model will be found.
        base_model: Model on the hub that this one was made of.
        metrics: Figures by their names, with data set and unit; without any the card says so.

    Returns:
        The file.
    """
    from huggingface_hub import ModelCard, ModelCardData

    data = ModelCardData(
        library_name=options.library,
        license=options.licence,
        pipeline_tag=options.pipeline_tag,
        tags=[*options.tags, options.library],
        base_model=base_model,
    )
    repository = find_repository(options.library)
    links = [f"[paper]({options.paper})", *([f"[repository]({repository})"] if repository else [])]
    rows = [f"| {name} | {value} |" for name, value in (metrics or {}).items()]
    table = ["| metric | figure |", "| --- | --- |", *rows] if rows else ["Figures were not given."]
    lines = [
        "---",
        data.to_yaml(),
        "---",
        "",
        f"# {repo_id.rpartition('/')[2]}",
        "",
        f"{options.title}: {', '.join(links)}, package {options.library}, licence {options.licence}.",
        "",
        "```python",
        options.usage.replace("{repo_id}", repo_id),
        "```",
        "",
        *table,
    ]
    file = Path(folder) / "README.md"
    ModelCard("\n".join(lines) + "\n").save(file)
    return file


def find_repository(library: str) -> str | None:
    """Return the address of a package's repository, as its metadata give it.

    Args:
        library: Name of the package.
    """
    urls = dict(each.split(", ", 1) for each in metadata(library).get_all("Project-URL") or ())
    return next((urls[name] for name in ("Repository", "Source", "Homepage") if name in urls), None)


def push_folder(
    folder: str | Path,
    repo_id: str,
    *,
    token: str | bool | None = None,
    private: bool | None = None,
    revision: str | None = None,
    commit_message: str = "Upload model",
) -> str:
    """Upload a folder to a model repository of the hub, which is created if it does not exist.

    Args:
        folder: Folder of the model.
        repo_id: Such as ``"owner/name"``.
        token: Access token of the hub; ``None`` takes the stored one.
        private: Whether a new repository is private; ``None`` for what the owner's settings say.
        revision: Branch.
        commit_message: Message of the commit.

    Returns:
        Address of the commit.
    """
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    api.create_repo(repo_id, private=private, exist_ok=True)
    done = api.upload_folder(
        repo_id=repo_id, folder_path=folder, revision=revision, commit_message=commit_message
    )
    return done.commit_url
