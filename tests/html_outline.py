"""Whether a report is whole HTML that carries its images."""

from __future__ import annotations

from html.parser import HTMLParser


class Outline(HTMLParser):
    """The elements that were never closed, in `open`, and how many images carry their bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.images = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.images += (dict(attrs)["src"] or "").startswith("data:image/png;base64,")
        elif tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
