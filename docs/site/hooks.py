"""What mkdocs is told beside mkdocs.yml: pages from files outside docs/, and links to those.

The pages are written for a git host too, so their links are relative to the repository. Here they
become links within the site: README.md is its home, CHANGELOG.md and the notebook are pages, and
any other file that is linked to has a page with its text.
"""

from __future__ import annotations

import base64
import json
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
NOTEBOOK = "notebooks/dev-2.0-dataset_construct-hotpot_qa.ipynb"
PAGES = {"README.md": "index.md", "CHANGELOG.md": "changelog.md", NOTEBOOK: "notebook.md"}
_SOURCES = {"changelog.md": "CHANGELOG.md", "notebook.md": NOTEBOOK}
_BLOCK = re.compile(r"(^ *(?:`{3,}|~{3,}).*?^ *(?:`{3,}|~{3,}) *$)", re.DOTALL | re.MULTILINE)
_FENCE = re.compile(r" *(`{3,}|~{3,})")
_LINK = re.compile(r"(?P<text>!?\[(?:[^\[\]]|\[[^\]]*\])*\])\((?P<target>[^)\s]+)\)")
_README = re.compile(r"<!-- README(?:: (?P<heading>.+?))? -->.*?<!-- /README -->", re.DOTALL)
_CELL_CODE = re.compile(r"(?<=<code>)[\w./-]{12,}(?=</code>[^\n]*</td>)")
_SHELL = re.compile(r'<div class="language-(?:bash|console) highlight">.*?</div>', re.DOTALL)
_FLAG = re.compile(r"(?<=[ >])--[a-z][\w-]*(?![^<]*>)")
_LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".json": "json", ".sh": "bash"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that have their text from elsewhere in the repository."""
    _add(files, config, "changelog.md", _read("CHANGELOG.md"))
    notebook = read_notebook(_read(NOTEBOOK))
    _add(files, config, "notebook.md", notebook.markdown)
    for name, picture in notebook.pictures.items():
        _add(files, config, f"images/{name}", picture)
    for path in sorted(set(_linked(files)) - set(PAGES)):
        language = _LANGUAGES.get(Path(path).suffix, "text")
        text = f"# {Path(path).name}\n\n`{path}`\n\n````{language}\n{_read(path)}````\n"
        _add(files, config, f"source/{path}.md", f"---\nsearch:\n  exclude: true\n---\n\n{text}")
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put in what README.md says, and turn links out of docs/ to the pages made of those files."""
    name = page.file.src_uri
    place = _SOURCES.get(name, f"docs/{name}")
    text = "".join(
        part if _FENCE.match(part) else turn_links(part, place, name) for part in _parts(markdown)
    )
    if name in ("index.md", "quickstart.md"):
        page.meta["hide"] = ["navigation"]  # there is nothing beside them
    readme = _read("README.md")
    return _README.sub(
        lambda found: turn_links(section(readme, found["heading"]), "README.md", name), text
    )


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Where lines may break: names in tables behind dots and underscores, flags nowhere."""
    names = _CELL_CODE.sub(lambda found: re.sub(r"([._/])(?=\w)", r"\1<wbr>", found[0]), html)
    return _SHELL.sub(lambda found: _FLAG.sub(r'<span class="flag">\g<0></span>', found[0]), names)


class Notebook(NamedTuple):
    """A notebook as Markdown, and its pictures by name."""

    markdown: str
    pictures: dict[str, bytes]


def read_notebook(text: str) -> Notebook:
    """The cells in their order: prose as it is, code and what it printed as blocks."""
    parts: list[str] = []
    pictures: dict[str, bytes] = {}
    for cell in json.loads(text)["cells"]:
        source = "".join(cell["source"]).strip()
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"````python\n{source}\n````")
        for output in cell["outputs"]:
            data: dict[str, Any] = output.get("data", {})
            if "image/png" in data:
                name = f"notebook-{len(pictures) + 1}.png"
                pictures[name] = base64.b64decode(data["image/png"])
                told = _alternative(data)
                parts.append(f"![{told}](images/{name})")
            elif output["output_type"] == "stream":
                parts.append(f"````text\n{''.join(output['text']).rstrip()}\n````")
    return Notebook("\n\n".join(parts) + "\n", pictures)


def _alternative(data: dict[str, Any]) -> str:
    """What stands for a picture: its text where the notebook has one, on one line."""
    told = " ".join("".join(data.get("text/plain", "")).split())
    return "Output of the cell above" if not told or told.startswith("<") else told[:200]


def section(text: str, heading: str | None) -> str:
    """What stands under a heading of the second level, or, with none, under the title; of a
    heading with "(list)" behind it the list alone.

    >>> section("# A\\n\\nlead\\n\\n## B\\n\\nmore\\n", "B")
    'more'
    >>> section("# A\\n\\nlead\\n\\n## B\\n\\nmore\\n", None)
    'lead'
    >>> section("# A\\n\\n## B\\n\\n- one\\n- two\\n\\nmore\\n", "B (list)")
    '- one\\n- two'
    """
    if heading is not None and heading.endswith(" (list)"):
        items = re.split(r"\n\n(?![-\s])", section(text, heading.removesuffix(" (list)")))
        return next(item for item in items if item.startswith("- "))
    parts = re.split(r"^(#{1,2} .+)$", text, flags=re.MULTILINE)
    for title, content in zip(parts[1::2], parts[2::2], strict=True):
        if title == f"## {heading}" or (heading is None and title.startswith("# ")):
            return content.strip()
    raise PluginError(f"README.md has no heading {heading!r}")


def turn_links(text: str, place: str, page: str) -> str:
    """Links of a text that stands in the file `place`, as the page `page` of docs/ needs them.

    >>> turn_links("[log](../CHANGELOG.md) [a](b.md#c)", "docs/x.md", "x.md")
    '[log](changelog.md) [a](b.md#c)'
    >>> turn_links("![plot](docs/images/plot.png)", "README.md", "howto/x.md")
    '![plot](../images/plot.png)'
    """

    def turned(found: re.Match[str]) -> str:
        link = found["target"]
        if re.match(r"[a-z][a-z0-9+.-]*:|//|#", link):
            return found[0]
        target, hash_, anchor = link.partition("#")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(place), target))
        if path.startswith("docs/"):
            inside = path.removeprefix("docs/")
        elif path in PAGES:
            inside, hash_, anchor = PAGES[path], "", ""
        elif (ROOT / path).is_dir():
            return found["text"][1:-1]  # folders are not shown here
        elif (ROOT / path).is_file():
            inside = f"source/{path}.md"
        else:
            return found[0]  # mkdocs says that it leads nowhere
        return f"{found['text']}({_from(page, inside)}{hash_}{anchor})"

    return _LINK.sub(turned, text)


def _from(page: str, target: str) -> str:
    return posixpath.relpath(target, posixpath.dirname(page) or ".")


def _parts(markdown: str) -> list[str]:
    """Fenced blocks and what stands between them; only the latter has links."""
    return _BLOCK.split(markdown)


def _linked(files: Files) -> Iterator[str]:
    """Files outside docs/ that its pages link to."""
    for file in files.documentation_pages():
        for found in _LINK.finditer(file.content_string):
            target = found["target"].partition("#")[0]
            folder = posixpath.dirname(f"docs/{file.src_uri}")
            path = posixpath.normpath(posixpath.join(folder, target))
            if not path.startswith("docs/") and target and (ROOT / path).is_file():
                yield path


def _read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def _add(files: Files, config: MkDocsConfig, name: str, content: str | bytes) -> None:
    files.append(File.generated(config, name, content=content))
