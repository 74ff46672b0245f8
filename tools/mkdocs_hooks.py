"""Hooks of the documentation site, named in mkdocs.yml: pages and links that lead out of docs/.

The pages are read in the repository as well, so they link to other files as they lie there. CONTRIBUTING.md and
CHANGELOG.md become pages of the site. Any other file outside docs/ that a page links to is published under repository/.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
ROOT_PAGES = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
# [text](target) and [text](target#anchor), with a target that is neither an address nor an anchor of the same page.
LINK = re.compile(r"(\]\()(?!\w+:|#|/)([^)#\s]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for source, page in ROOT_PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text()))
    for file in list(files.documentation_pages()):
        for _, target in LINK.findall(file.content_string):
            path = repository_path(file.src_uri, target)
            if is_outside_docs(path) and (ROOT / path).is_file() and not files.get_file_from_path(published(path)):
                files.append(File.generated(config, published(path), abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    here = posixpath.dirname(page.file.src_uri)

    def in_the_site(match: re.Match) -> str:
        path = repository_path(page.file.src_uri, match[2])
        target = published(path) if is_outside_docs(path) else path.removeprefix("docs/")
        return match[1] + posixpath.relpath(target, here or ".")

    return LINK.sub(in_the_site, markdown)


def repository_path(page: str, target: str) -> str:
    """Where a link leads, relative to the repository; `page` is the linking page's path in the site."""
    folder = "." if page in ROOT_PAGES.values() else posixpath.join("docs", posixpath.dirname(page))
    return posixpath.normpath(posixpath.join(folder, target))


def is_outside_docs(path: str) -> bool:
    return not path.startswith("docs/")


def published(path: str) -> str:
    """Where a file outside docs/ lies in the site, relative to docs/."""
    if path == "README.md":
        return "README.md"
    return ROOT_PAGES.get(path, f"repository/{path}")
