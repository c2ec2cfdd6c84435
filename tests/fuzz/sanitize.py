"""The C twins built with gcc's address and undefined behaviour sanitizers, beside the ones in use."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
BUILT: Final = ROOT / "var" / "fuzz" / "sanitized"
VARIABLE: Final = "NOVACRON_FUZZ_EXTENSIONS"
"""Names the folder of the built extensions to a worker."""
_FLAGS: Final = "-O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined"


def build() -> Path:
    """All extensions of setup.py; the folder. Raises SystemExit with the compiler's words if one does not build."""
    BUILT.mkdir(parents=True, exist_ok=True)
    for old in BUILT.rglob("*.so"):
        old.unlink()
    command = [sys.executable, "setup.py", "build_ext", "--force", f"--build-lib={BUILT}", f"--build-temp={BUILT}/temp"]
    environment = {**os.environ, "CFLAGS": _FLAGS, "LDFLAGS": "-fsanitize=address,undefined"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    sources = sorted((ROOT / "dwcp" / "encoding").glob("_*.c"))
    built = sorted(BUILT.rglob("*.so"))
    if done.returncode or len(built) < len(sources):
        words = (done.stdout + done.stderr)[-4000:]
        raise SystemExit(f"{words}\nof {len(sources)} extensions {len(built)} were built with sanitizers; see above")
    return BUILT


def environment(extensions: Path) -> dict[str, str]:
    """For a worker: its Python is not built with a sanitizer, so the library must be there before it."""
    libraries = [_library(name) for name in ("libasan.so", "libubsan.so")]
    return {
        VARIABLE: str(extensions),
        "LD_PRELOAD": " ".join(libraries),
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1:allocator_may_return_null=1",
        "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
        "PYTHONMALLOC": "malloc",
    }


def _library(name: str) -> str:
    found = subprocess.run(
        ["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True
    ).stdout.strip()
    if not Path(found).is_absolute():
        raise SystemExit(f"gcc has no {name}; install its sanitizers (Debian: libgcc-12-dev)")
    return found


def use_built_extensions() -> None:
    """Inside a worker: import the sanitized extensions under the names of the others."""
    folder = os.environ.get(VARIABLE)
    for path in sorted(Path(folder).rglob("*.so")) if folder else ():
        name = ".".join([*path.relative_to(folder or "").parts[:-1], path.name.split(".")[0]])
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
