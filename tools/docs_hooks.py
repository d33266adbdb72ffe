"""What the site (`make docs`) needs besides docs/: the pages and files at the root, and equations without a script.

README.md is the first page, and notebooks are pages. Links are those that work in the repository; here each is bent to
where its target stands on the site, so that one text serves both and every link is checked.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
BESIDE = ("CONTRIBUTING.md", "CHANGELOG.md", "CITATION.cff", "examples/*.py", "benchmarks/results/*/records.jsonl")
NOTEBOOK = re.compile(r"(examples/\w+)\.py\)")
CELL = re.compile(r"^# %%(.*)\n", re.MULTILINE)
EQUATION = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def on_files(files: Files, *, config: Any) -> Files:
    """README.md as index.md, and whatever pages link to outside docs/."""
    files.append(File.generated(config, "index.md", abs_src_path=str(ROOT / "README.md")))
    for pattern in BESIDE:
        for file in sorted(ROOT.glob(pattern)):
            files.append(File.generated(config, file.relative_to(ROOT).as_posix(), abs_src_path=str(file)))
    for file in notebooks():
        page = notebook_page(file.read_text(encoding="utf-8"))
        files.append(File.generated(config, f"examples/{file.stem}.md", content=page))
    return files


def notebooks() -> list[Path]:
    """Examples in jupytext's percent form."""
    return [file for file in sorted(ROOT.glob("examples/*.py")) if CELL.match(file.read_text(encoding="utf-8"))]


def notebook_page(text: str) -> str:
    """A percent script as Markdown: comments of text cells are the page, code cells are fenced."""
    _, *parts = CELL.split(text)
    cells = []
    for kind, body in zip(parts[::2], parts[1::2], strict=True):
        told = re.sub(r"^# ?", "", body, flags=re.MULTILINE)
        cells.append(told.strip() if "[markdown]" in kind else f"```python\n{body.strip()}\n```")
    return "\n\n".join(cells) + "\n"


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Links out of docs/ lose one step up; those of the pages at the root lose their docs/."""
    if (ROOT / page.file.src_uri).exists() or page.file.src_uri == "index.md":
        return markdown.replace("](docs/", "](")
    up = "../" * page.file.src_uri.count("/")
    markdown = markdown.replace(f"]({up}../", f"]({up}")
    pages = {f"examples/{file.stem}" for file in notebooks()}
    return NOTEBOOK.sub(lambda link: f"{link[1]}.md)" if link[1] in pages else link[0], markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Equations as MathML, which browsers show by themselves."""

    def equation(match: re.Match[str]) -> str:
        from html import unescape

        return convert(unescape(match[2]), display="block" if match[1] == "div" else "inline")

    return EQUATION.sub(equation, html)
