"""Hooks of the documentation site: the README is its first page; linked files outside `docs/` are pages, too.

So links work on GitHub, where they are relative to the repository, and on the site, which needs no network.
"""

import logging
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(?<=\]\()([^)\s:#]+)")
EXTERNAL = re.compile(r"""<(?:script|img|link|iframe|source)\b[^>]*?(?:src|href)=["']?(?:https?:)?//[^>]*>""")
log = logging.getLogger("mkdocs.hooks")


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the README, and every file outside `docs/` that is linked to, also from an added page."""
    texts = [("docs/" + file.src_uri, file.content_string) for file in files.documentation_pages()]
    wanted = ["README.md"]
    for path, text in texts:
        wanted += [link for link in linked_files(path, text) if not link.startswith("docs/")]
    for path in wanted:  # grows
        uri = site_uri(path)
        if files.get_file_from_path(uri) is None:
            text = (ROOT / path).read_text(encoding="utf-8")
            kind = Path(path).suffix.removeprefix(".")
            content = text if kind == "md" else f"# {path}\n\n````{kind}\n{text}````\n"
            files.append(File.generated(config, uri, content=content))
            wanted += [link for link in linked_files(path, text) if kind == "md" and not link.startswith("docs/")]
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Return the text with its links to files of the repository changed to the pages of the site."""
    uri = page.file.src_uri
    path = uri if page.file.generated_by else f"docs/{uri}"

    def changed(match: re.Match[str]) -> str:
        target = resolved(path, match[0])
        return posixpath.relpath(site_uri(target), posixpath.dirname(uri) or ".") if target else match[0]

    return LINK.sub(changed, markdown)


def on_post_page(output: str, *, page: Page, config: MkDocsConfig) -> str:
    """Warn of a script, style, font or image from another host: the site must work without a network."""
    for tag in EXTERNAL.findall(output):
        log.warning("%s loads from another host: %s", page.file.src_uri, tag)
    return output


def linked_files(path: str, text: str) -> list[str]:
    """Return the files of the repository that the text of the file `path` links to, as paths from its root."""
    return [target for link in LINK.findall(text) if (target := resolved(path, link))]


def resolved(path: str, link: str) -> str | None:
    """Return the path of a linked file from the root of the repository, None if there is no such file."""
    target = posixpath.normpath(posixpath.join(posixpath.dirname(path), link))
    return target if not target.startswith("..") and (ROOT / target).is_file() else None


def site_uri(path: str) -> str:
    """Return the path on the site of a file of the repository; a linked source file is a page with its text."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return path if path.endswith(".md") else f"{path}.md"
