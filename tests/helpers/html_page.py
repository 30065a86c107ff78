"""A page of HTML as tests read it."""

from html.parser import HTMLParser
from pathlib import Path

from a2data.store.tables import Store
from pipelines.report.page import write_report
from pipelines.triplets import triplets

VOID = {"meta", "img", "br", "rect", "line", "input", "image", "path"}


class Page(HTMLParser):
    """All tags in order, and all text with the tags that it stands in."""

    def __init__(self, html: str):
        super().__init__()
        self.html, self.open, self.tags, self.texts = html, [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop()[0] == tag, f"</{tag}> closes another tag"

    def handle_data(self, data):
        self.texts.append((data, list(self.open)))

    def all(self, tag: str) -> list[dict]:
        return [attrs for name, attrs in self.tags if name == tag]

    def inside(self, tag: str, **wanted: str) -> list[tuple[str, list]]:
        """The texts inside such a tag, each with the tags between."""
        found = []
        for text, path in self.texts:
            at = [n for n, (name, attrs) in enumerate(path) if name == tag and wanted.items() <= attrs.items()]
            if at:
                found.append((text, path[at[0] + 1 :]))
        return found

    def text(self, tag: str, **wanted: str) -> str:
        return " ".join(word for text, _ in self.inside(tag, **wanted) for word in text.split())


def written(store: Store, folder: Path, **options) -> Page:
    write_report(store, folder / "report.html", triplets(), **options)
    return Page((folder / "report.html").read_text(encoding="utf-8"))
