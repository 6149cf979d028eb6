# SPDX-License-Identifier: Apache-2.0
"""Runs the notebooks of ``docs/notebooks`` and makes pages of them.

``run [--write] [NAME...]`` executes them with the packages that are installed, each in an empty folder, and
fails where one does; ``--write`` keeps the outputs. ``pages`` writes each with its stored outputs as Markdown
beside it, for the site.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

NOTEBOOKS = Path(__file__).resolve().parent.parent / "docs" / "notebooks"
MAX_BYTES = 200_000  # of a notebook with its images
COLAB = "https://colab.research.google.com/github"
BADGE = "[Open in Colab]({colab}/{repository}/blob/main/docs/notebooks/{name}.ipynb){{ .md-button }}\n\n"


def run(names: list[str], *, is_kept: bool) -> list[str]:
    """Execute notebooks; return what went wrong.

    Args:
        names: Names of packages, all notebooks if empty.
        is_kept: Whether outputs are stored in the notebooks.
    """
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    faults: list[str] = []
    for file in sorted(NOTEBOOKS.glob("*.ipynb")):
        if names and file.stem not in names:
            continue
        notebook, start = nbformat.read(file, as_version=4), time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            client = NotebookClient(
                notebook, timeout=300, coalesce_streams=True, resources={"metadata": {"path": folder}}
            )
            try:
                client.execute()
            except CellExecutionError as error:
                faults.append(f"{file.name}: {error}")
                continue
        seconds = time.monotonic() - start
        sys.stdout.write(f"{file.name}: {seconds:.0f} s\n")
        if is_kept:
            for cell in notebook.cells:
                cell.metadata.clear()  # times of the run, which differ each time
                if cell.cell_type == "code":  # progress bars are for people who wait
                    cell.outputs = [each for each in cell.outputs if each.get("name") != "stderr"]
            nbformat.write(notebook, file)
            if file.stat().st_size > MAX_BYTES:
                faults.append(f"{file.name} has {file.stat().st_size} bytes, more than {MAX_BYTES}")
    return faults


def write_pages() -> None:
    """Write every notebook as Markdown, its images beside it."""
    from nbconvert import MarkdownExporter

    for file in sorted(NOTEBOOKS.glob("*.ipynb")):
        folder = NOTEBOOKS / f"{file.stem}_files"
        shutil.rmtree(folder, ignore_errors=True)
        text, resources = MarkdownExporter().from_filename(str(file), {"output_files_dir": folder.name})
        for name, content in resources["outputs"].items():
            (NOTEBOOKS / name).parent.mkdir(exist_ok=True)
            (NOTEBOOKS / name).write_bytes(content)
        title, _, rest = text.lstrip().partition("\n")
        repository = os.environ.get("GITHUB_REPOSITORY")
        badge = BADGE.format(colab=COLAB, repository=repository, name=file.stem) if repository else ""
        (NOTEBOOKS / f"{file.stem}.md").write_text(f"{title}\n\n{badge}{rest}", "utf-8")


def main() -> int:
    """Run the step that the first argument names."""
    step, *arguments = sys.argv[1:] or [""]
    if step == "pages" and not arguments:
        write_pages()
        return 0
    if step != "run":
        sys.stderr.write("usage: notebooks.py run [--write] [NAME...] | pages\n")
        return 2
    faults = run([each for each in arguments if each != "--write"], is_kept="--write" in arguments)
    sys.stderr.write("".join(f"{fault}\n" for fault in faults))
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
