"""Make the corpora named, or all, and say what is in them."""

from __future__ import annotations

import json
import sys

from bench.corpora.make import NAMES, about, corpus
from workers.lab.errors import LabError


def main() -> int:
    wanted = sys.argv[1:] or list(NAMES)
    if unknown := [name for name in wanted if name not in NAMES]:
        print(f"no corpus {', '.join(unknown)}: there are {', '.join(NAMES)}", file=sys.stderr)
        return 2
    print("| corpus | MiB | zero pages | what it is |\n| --- | --- | --- | --- |")
    for name in wanted:
        try:
            corpus(name)
        except LabError as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 1
        facts = json.loads(about(name).read_text())
        print(f"| {name} | {facts['pages'] / 256:.0f} | {facts['zero'] / facts['pages']:.0%} | {facts['what']} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
