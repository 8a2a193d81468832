"""Checks every Markdown file: relative links lead somewhere, headings that are linked exist, make targets are real,
decision records are numbered 1, 2, 3 and so on, in their names as in their titles.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+\s+(.*?)\s*$", re.MULTILINE)
MAKE = re.compile(r"^\s*(?:\$ )?make ((?:[a-z][a-z0-9-]* ?)+)|`make ([a-z][a-z0-9-]*)", re.MULTILINE)
TARGET = re.compile(r"^([a-z][a-z0-9-]*):", re.MULTILINE)


def anchors(text: str) -> set[str]:
    """The names under which a document's headings are linked."""
    plain = (re.sub(r"[^\w\- ]", "", title.lower()) for title in HEADING.findall(text))
    return {title.replace(" ", "-") for title in plain}


def broken_links(document: Path, text: str) -> list[str]:
    """Relative links of ``document`` that lead to no file or to no heading."""
    found = []
    for link in LINK.findall(text):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = document.parent / name if name else document
        missing = not target.exists()
        if missing or (anchor and target.suffix == ".md" and anchor not in anchors(target.read_text())):
            found.append(f"link leads nowhere: {link}")
    return found


def unknown_targets(text: str, targets: set[str]) -> list[str]:
    """Make targets that are named but do not exist; a ``NAME`` in capitals stands for any."""
    named = {word for match in MAKE.findall(text) for word in " ".join(match).split()}
    return [f"no such target: make {word}" for word in sorted(named - targets) if not word.endswith("-")]


def misnumbered(folder: Path) -> list[str]:
    """Decision records whose name or title does not have the next number."""
    records = sorted(folder.glob("*.md"))
    return [
        f"{record.name}: expected number {number} in name and title"
        for number, record in enumerate(records, start=1)
        if not (record.name.startswith(f"{number:04d}-") and record.read_text().startswith(f"# {number}. "))
    ]


def main() -> int:
    """Print every mistake as ``file: what``; 1 if there is any."""
    targets = set(TARGET.findall((ROOT / "Makefile").read_text()))
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    mistakes = []
    for name in listed.stdout.split():
        text = (ROOT / name).read_text()
        mistakes += [f"{name}: {what}" for what in broken_links(ROOT / name, text) + unknown_targets(text, targets)]
    mistakes += misnumbered(ROOT / "docs" / "adr")
    print("\n".join(mistakes) if mistakes else f"docs-check: {len(listed.stdout.split())} documents")
    return 1 if mistakes else 0


if __name__ == "__main__":
    sys.exit(main())
