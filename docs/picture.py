#!/usr/bin/env python3
"""Draws what a terminal showed as an SVG picture: text on standard input, SVG on standard output.

    cargo run --release -- demo | python3 docs/picture.py --title 'hobnob demo' > docs/demo.svg

Nothing of the text is changed, but for two things: colours are dropped, and of a run of many chat lines (those that
begin with 12 spaces and a #) only the first few are drawn, with a line that says how many were left out. Standard
library only.
"""

import argparse
import re
import sys
from xml.sax.saxutils import escape

WIDTH, LINE, LEFT, TOP = 8.4, 20, 18, 52
BACK, BAR, PLAIN, DIM, TIME, ROOM, GOOD, BAD = (
    "#16181d", "#262a33", "#d7dae0", "#8a92a3", "#e5b567", "#6fb3d2", "#8fc77b", "#e0705f")
CHAT = re.compile(r"^ {12}(#\S+) (\S+:)(.*)$")
STORY = re.compile(r"^( *[0-9.]+ s)(  .*)$")


def fold(lines, keep):
    """Leaves out all but the first `keep` lines of each run of chat lines."""
    shown, run = [], []
    for line in lines + [None]:
        if line is not None and CHAT.match(line):
            run.append(line)
            continue
        shown += run[:keep]
        if len(run) > keep:
            shown.append(" " * 12 + f"... {len(run) - keep} more lines of chat")
        run = []
        if line is not None:
            shown.append(line)
    return shown


def spans(line):
    """A line as pieces of (colour, text)."""
    if chat := CHAT.match(line):
        return [(PLAIN, " " * 12), (ROOM, chat[1] + " "), (DIM, chat[2]), (PLAIN, chat[3])]
    if story := STORY.match(line):
        colour = BAD if "SIGKILL" in line else PLAIN
        return [(TIME, story[1]), (colour, story[2])]
    if line.startswith("$ "):
        return [(GOOD, "$ "), (PLAIN, line[2:])]
    if line.lstrip().startswith("... "):
        return [(DIM, line)]
    return [(GOOD if " 0 lost, 0 doubled" in line else PLAIN, line)]


def draw(lines, title):
    """The picture."""
    width = max([len(line) for line in lines] + [60]) * WIDTH + 2 * LEFT
    height = TOP + LINE * len(lines) + 12
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" width="{width:.0f}" '
        f'height="{height}" role="img">',
        f"<title>{escape(title)}</title>",
        f'<rect width="100%" height="100%" rx="8" fill="{BACK}"/>',
        f'<path d="M0 8a8 8 0 0 1 8-8H{width - 8:.0f}a8 8 0 0 1 8 8V30H0Z" fill="{BAR}"/>',
    ]
    out += [f'<circle cx="{18 + 18 * n}" cy="15" r="5" fill="{colour}"/>' for n, colour in enumerate((BAD, TIME, GOOD))]
    out.append(f'<g font-family="ui-monospace,SFMono-Regular,Menlo,Consolas,monospace" font-size="14" '
               f'xml:space="preserve"><text x="{width / 2:.0f}" y="20" fill="{DIM}" text-anchor="middle" '
               f'font-size="12">{escape(title)}</text>')
    for row, line in enumerate(lines):
        column = 0
        for colour, text in spans(line):
            if text.strip():
                x, y, length = LEFT + column * WIDTH, TOP + row * LINE, len(text) * WIDTH
                out.append(f'<text x="{x:.1f}" y="{y}" fill="{colour}" textLength="{length:.1f}">{escape(text)}</text>')
            column += len(text)
    return "\n".join(out + ["</g>", "</svg>", ""])


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--title", default="hobnob")
    arguments.add_argument("--keep", type=int, default=4, help="chat lines of each run that are drawn")
    options = arguments.parse_args()
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", sys.stdin.read()).replace("\r", "")
    lines = [line.rstrip() for line in text.expandtabs().strip("\n").split("\n")]
    sys.stdout.write(draw(fold(lines, options.keep), options.title))


if __name__ == "__main__":
    main()
