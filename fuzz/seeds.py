#!/usr/bin/env python3
"""Writes the first corpora: the examples of docs/protocol.md, each for the entry points that read such bytes."""

import json
from pathlib import Path

ROOT = Path(__file__).parent


def step(number, text):
    """A step of a script: a number, and bytes with their length before them."""
    return bytes([number]) + len(text).to_bytes(2, "big") + text


def entry_of(example):
    """The entry that a line carries, if it does."""
    match example.get("t"):
        case "entry":
            return {name: value for name, value in example.items() if name != "t"}
        case "import":
            return example["what"].get("entry")


def write(corpus, name, data):
    folder = ROOT / "corpus" / corpus
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name.strip("-")).write_bytes(data)


pieces, said, kinds = b"", b"", set()
for line in (ROOT / "../docs/protocol.md").read_text().splitlines():
    if not line.startswith('{"'):
        continue
    example, data = json.loads(line), line.encode()
    kind = example.get("t", example.get("as"))
    corpus = "discovery" if "hobnob" in example else "greeting" if "as" in example else "frame"
    # The first of a kind has its name, whatever is kept already: written again, they are the same files.
    if kind in kinds:
        kind += "-" + str(sum(data) % 1000)
    kinds.add(kind)
    write(corpus, kind, data)
    if kind.startswith("fragment"):
        pieces += step(3, data)
    elif entry := entry_of(example):
        write("entry", kind, json.dumps(entry, separators=(",", ":"), ensure_ascii=False).encode())
    elif corpus == "frame" and len(said) < 1500:
        said += step(1, data)

taken = b"".join(bytes([2, piece]) for piece in reversed(range(12)))
write("fragment", "pieces", pieces)
write("fragment", "line", step(0, "Tea? \\ö\u0001".encode() * 30) + bytes([31, 1]) + taken + bytes([1, 200, 0]) + taken)
# Lines are said; hours pass in steps, so that keys change; packets of before come again, as they were and changed.
hour = bytes([4, 5, 0, 7]) * 80
again = b"".join(bytes([2, which, 0, 0, 0, 0, 10, which, 0, 20, 1, 0]) for which in range(12))
write("session", "open", bytes([1]) + said + bytes([7]) + again)
write("session", "rekey", bytes([3]) + hour + step(9, b'{"t":"ping"}') + bytes([7]) + again)
write("session", "cold", bytes([0]) + again + bytes([7, 6, 7, 5, 7]) + again)
write("session", "garbage", bytes([1]) + step(0, bytes([3]) * 40) + step(8, bytes([1]) * 400) + step(0, bytes([4]) * 30))
