"""What the site does with links to files outside docs/: they work on a code host, where the whole
repository is there."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
OUTSIDE = re.compile(r"\[([^\]]*)\]\(\.\./([^)#]+)(#[^)]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Publish the files that pages link to, under repository/."""
    for page in files.documentation_pages():
        for _, path, _ in OUTSIDE.findall(page.content_string):
            name = f"repository/{path}"
            if published(path) and name not in files.src_uris:
                files.append(File.generated(config, name, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Point the links at the published files. What is not published keeps its text alone."""

    def inside(link: re.Match[str]) -> str:
        text, path, _ = link.groups()
        return f"[{text}](repository/{path})" if published(path) else f"{text} (`{path}`)"

    return OUTSIDE.sub(inside, markdown)


def published(path: str) -> bool:
    """Whether the site holds this file: recipes and the like, but no Markdown and no folders."""
    return (ROOT / path).is_file() and not path.endswith(".md")
