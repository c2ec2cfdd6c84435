"""Real memory, to measure codecs on: `corpus(name)` gives a file of raw 4 KiB pages of RAM that was really used.

`python -m bench.corpora` makes what is missing and says what there is. The files lie in the lab's folder
(NOVACRON_LAB_DIR), each with a JSON that tells how it was made; packages that a corpus needs are installed when they
are missing. Everything talks over loopback or UNIX sockets only, and ends before `corpus` returns.
"""

from bench.corpora.make import NAMES, corpus

__all__ = ["NAMES", "corpus"]
