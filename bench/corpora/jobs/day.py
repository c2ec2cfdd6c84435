"""Python's part of the corpus guest's day. `serve` keeps a catalogue in memory; `report` writes a database to disk."""

import json
import re
import sqlite3
import sys
import time
from pathlib import Path


def packages() -> list[dict[str, str]]:
    """The records of dpkg's status file."""
    records = Path("/var/lib/dpkg/status").read_text(errors="replace").split("\n\n")
    return [dict(re.findall(r"^([A-Za-z-]+): (.*)$", record, re.M)) for record in records]


def report() -> None:
    table = sqlite3.connect("/root/day.db")
    table.execute("PRAGMA cache_size = -16000")
    table.execute("CREATE TABLE word (file TEXT, place INTEGER, word TEXT)")
    for path in sorted(Path("/usr/lib/python3.11").glob("*.py"))[:120]:
        words = re.findall(r"\w{3,}", path.read_text(errors="replace"))
        table.executemany("INSERT INTO word VALUES (?, ?, ?)", ((path.name, i, word) for i, word in enumerate(words)))
    table.commit()
    table.execute("CREATE INDEX by_word ON word (word)")
    common = table.execute("SELECT word, count(*) n FROM word GROUP BY word ORDER BY n DESC LIMIT 2000").fetchall()
    table.execute("DELETE FROM word WHERE place % 7 = 0")
    table.commit()
    Path("/root/report.json").write_text(json.dumps({"common": common, "packages": packages()}, indent=1))
    table.close()


def serve() -> None:
    catalogue = packages()
    by_name = {entry.get("Package", ""): json.dumps(entry) for entry in catalogue}
    sources = {str(path): path.read_text(errors="replace") for path in Path("/usr/lib/python3.11").glob("[a-m]*.py")}
    lines = {name: text.splitlines() for name, text in sources.items()}
    Path("/tmp/serving").write_text(f"{len(by_name)} {sum(map(len, lines.values()))}\n")
    while True:
        time.sleep(1)


if __name__ == "__main__":
    {"serve": serve, "report": report}[sys.argv[1]]()
