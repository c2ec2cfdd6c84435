"""One target in a process of its own, and the process that watches it.

The input under way lies in a mapped file, so that it outlives a crash of C code. A watchdog ends a run that hangs.
After a finding of that kind the target goes on in a new process, with another seed, until its time is used up.
"""

from __future__ import annotations

import faulthandler
import json
import logging
import mmap
import os
import re
import resource
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from blake3 import blake3

from tests.fuzz import sanitize
from tests.fuzz.engine import MAX_INPUT, Case, Finding, fuzz, outcome
from tests.fuzz.targets import SELF_TESTS, TARGETS, load

ROOT: Final = Path(__file__).resolve().parents[2]
FOLDER: Final = ROOT / "var" / "fuzz"
HANG_SECONDS: float = float(os.environ.get("NOVACRON_FUZZ_HANG", "20"))
MEMORY_BYTES: Final = 3 << 30
"""Address space of a worker: no decoder may need more. Sanitizers need terabytes of it, so not with them."""
MOST_CRASHES: Final = 3
_SLOT: Final = MAX_INPUT + (1 << 17)


@dataclass(frozen=True)
class Kept:
    what: str
    path: str
    again: str


@dataclass
class Report:
    name: str
    executions: int = 0
    seconds: float = 0.0
    outcomes: int = 0
    findings: list[Kept] = field(default_factory=list)
    trouble: list[str] = field(default_factory=list)


class Current:
    """The input under way, in a file that both processes map."""

    def __init__(self, path: Path) -> None:
        with path.open("a+b") as file:
            file.truncate(16 + _SLOT)
            self._map = mmap.mmap(file.fileno(), 16 + _SLOT)

    def put(self, number: int, data: bytes) -> None:
        self._map[16 : 16 + len(data)] = data
        self._map[:16] = number.to_bytes(8, "big") + len(data).to_bytes(8, "big")

    def get(self) -> tuple[int, bytes]:
        size = int.from_bytes(self._map[8:16], "big")
        return int.from_bytes(self._map[:8], "big"), self._map[16 : 16 + size]


def drive(name: str, seed: int, seconds: float, folder: Path, extensions: Path | None) -> Report:
    """Run one target until its time is used up, whatever becomes of its processes."""
    report, crashes = Report(name), 0
    while crashes < MOST_CRASHES and (not report.executions or seconds - report.seconds > 0.2):
        current, said = folder / f"{name}.current", folder / f"{name}.said"
        Current(current).put(0, b"")
        with said.open("wb") as log:
            arguments = [name, str(seed + crashes), str(max(0.1, seconds - report.seconds)), str(current)]
            done = subprocess.run(
                [sys.executable, "-m", "tests.fuzz.worker", *arguments],
                cwd=ROOT,
                env=_environment(extensions),
                stdout=subprocess.PIPE,
                stderr=log,
                check=False,
            )
        words = said.read_text(errors="replace")
        said.unlink()
        number, data = Current(current).get()
        current.unlink()
        if done.returncode == 0:
            _add(report, json.loads(done.stdout), folder)
            break
        if not number:
            report.trouble.append(f"does not start: {words.strip()[-2000:]}")
            break
        crashes += 1
        report.executions += number
        report.seconds += float(re.findall(r"^used (\S+)", words, re.M)[-1]) if "used " in words else 1.0
        report.findings.append(_keep(folder, name, data, _manner(done.returncode, words), words))
    return report


def _environment(extensions: Path | None) -> dict[str, str]:
    environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": str(ROOT)}
    return {**environment, **sanitize.environment(extensions)} if extensions else environment


def _manner(code: int, words: str) -> str:
    """How a process ended, in a few words."""
    for line in words.splitlines():
        if "ERROR: AddressSanitizer" in line or "runtime error:" in line:
            return line.strip()
    if "Timeout (" in words:
        return f"hangs for over {HANG_SECONDS:g} s"
    return f"ends with {signal.Signals(-code).name}" if code < 0 else f"ends with exit code {code}"


def _add(report: Report, told: dict[str, object], folder: Path) -> None:
    report.executions += int(str(told["executions"]))
    report.seconds += float(str(told["seconds"]))
    report.outcomes = int(str(told["outcomes"]))
    findings = told["findings"]
    assert isinstance(findings, list)
    for each in findings:
        finding = Finding(bytes.fromhex(each["data"]), each["what"], each["trace"], each["place"])
        report.findings.append(_keep(folder, report.name, finding.data, finding.what, finding.trace))


def _keep(folder: Path, name: str, data: bytes, what: str, words: str) -> Kept:
    path = folder / f"{name}-{blake3(data).hexdigest()[:16]}.bin"
    path.write_bytes(data)
    path.with_suffix(".txt").write_text(f"{what}\n\n{words}")
    shown = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
    return Kept(what[:300], str(shown), f"python -m tests.fuzz --replay {shown}")


def replay(path: Path, extensions: Path | None) -> int:
    """Run one kept input, in a process of its own. 1: it still breaks its target."""
    name = path.stem.rpartition("-")[0]
    if name not in {**TARGETS, **SELF_TESTS} or not path.is_file():
        raise SystemExit(f"{path}: no such input, or its name does not begin with a target's; see --list")
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.worker", name, "--input", str(path.resolve())],
        cwd=ROOT,
        env=_environment(extensions),
        check=False,
    )
    print(f"{name}: {'holds' if done.returncode == 0 else 'still breaks'}")
    return 1 if done.returncode else 0


# --- inside the worker's process ---


def work(name: str, seed: int, seconds: float, current: Path) -> None:
    case = _ready(name)
    slot, used = Current(current), time.process_time
    number, armed, begun = 0, 0.0, used()

    def before(data: bytes) -> None:
        nonlocal number, armed
        number += 1
        slot.put(number, data[:_SLOT])
        now = time.monotonic()
        if now - armed > min(1.0, HANG_SECONDS / 10):  # re-arming costs more than most inputs
            armed = now
            print(f"used {used() - begun:.1f}", file=sys.stderr, flush=True)
            faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)

    tally = fuzz(case, seed, seconds=seconds, before=before)
    faulthandler.cancel_dump_traceback_later()
    findings = [{**asdict(finding), "data": finding.data.hex()} for finding in tally.findings]
    told = {"executions": tally.executions, "seconds": tally.seconds, "outcomes": len(tally.outcomes)}
    print(json.dumps({**told, "findings": findings}))


def _ready(name: str) -> Case:
    faulthandler.enable()
    logging.disable(logging.CRITICAL)  # here and not in a target: the tests run targets in a process they share
    sanitize.use_built_extensions()
    if not os.environ.get(sanitize.VARIABLE):
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    return load(name)


def main() -> None:
    name, *rest = sys.argv[1:]
    if rest[0] == "--input":
        faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
        print(outcome(_ready(name), Path(rest[1]).read_bytes()))
    else:
        work(name, int(rest[0]), float(rest[1]), Path(rest[2]))


if __name__ == "__main__":
    main()
