"""Draw what a command shows in a real terminal: `python scripts/picture.py docs/demo.svg -- make demo` (needs tmux).

tmux is the terminal: the command runs in it, and the screen it leaves, colours included, becomes an SVG.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import time
import uuid
from pathlib import Path

from rich.console import Console
from rich.text import Text

WIDTH, HEIGHT, WITHIN = 108, 40, 600.0
_FONT_FACE = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)


def screen(command: str) -> str:
    """The terminal's content, with colours, after the command has ended."""
    server = f"picture-{uuid.uuid4().hex[:8]}"
    done = f"done-{uuid.uuid4().hex[:8]}"

    def tmux(*words: str) -> str:
        return subprocess.run(["tmux", "-L", server, *words], check=True, capture_output=True, text=True).stdout

    tmux("new-session", "-d", "-x", str(WIDTH), "-y", str(HEIGHT), f"{command}; tmux -L {server} set -g @{done} 1; cat")
    try:
        deadline = time.monotonic() + WITHIN
        while "1" not in tmux("show-options", "-gqv", f"@{done}"):
            if time.monotonic() > deadline:
                raise TimeoutError(f"`{command}` did not end within {WITHIN:.0f} s")
            time.sleep(0.2)
        return tmux("capture-pane", "-p", "-e").rstrip()
    finally:
        tmux("kill-server")


def main() -> None:
    if len(sys.argv) < 4 or sys.argv[2] != "--":
        sys.exit(__doc__)
    command = shlex.join(sys.argv[3:])
    console = Console(record=True, width=WIDTH, file=sys.stderr, force_terminal=True)
    console.print(Text.assemble(("$ ", "bold green"), (command, "bold")))
    console.print(Text.from_ansi(screen(command)))
    svg = console.export_svg(title=command)
    Path(sys.argv[1]).write_text(_FONT_FACE.sub("", svg))  # the reader's own monospace font, nothing fetched


if __name__ == "__main__":
    main()
