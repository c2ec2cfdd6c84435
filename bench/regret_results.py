"""How far the codec selector stood behind the oracle, as `bench/regret.py` wrote it."""

from __future__ import annotations

from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from bench.bars import Regret
from bench.results import ResultsError

_REGRETS = TypeAdapter(tuple[Regret, ...])


def load(path: Path) -> tuple[Regret, ...]:
    """All rows; none when the file does not exist. Raises ResultsError."""
    if not path.exists():
        return ()
    try:
        return _REGRETS.validate_json(path.read_bytes())
    except ValidationError as error:
        raise ResultsError(f"{path} holds no regrets: {error}. Move it away and run again") from error
