"""What MkDocs calls while it builds the site."""

from __future__ import annotations

from typing import Any

import generate
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages to the site."""
    for uri, page in generate.PAGES.items():
        files.append(File.generated(config, uri, content=generate.NOTICE + page()))
    return files


def on_post_page(output: str, page: Any, config: MkDocsConfig) -> str:
    """Refuse a page that would load anything from another host."""
    remote = generate.REMOTE.search(output)
    if remote:
        raise PluginError(f"{page.file.src_uri} loads from another host: {remote[0]}")
    return output
