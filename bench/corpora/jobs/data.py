"""Work of a data process: a million small facts about orders, in the forms a program holds them in. Ends with its
standard input. Run alone (`python -I`): it is measured, it measures nothing.
"""

from __future__ import annotations

import array
import collections
import json
import random
import sqlite3
import sys
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

ORDERS = 60_000
READINGS = 4_000_000
WORDS = (
    "amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heath", "inlet",
    "jetty", "knoll", "ledge", "marsh", "north", "orbit", "pearl", "quay", "ridge",
)  # fmt: skip


@dataclass
class Order:
    number: int
    customer: str
    placed: datetime
    lines: list[tuple[str, int, Decimal]]
    note: str

    @property
    def total(self) -> Decimal:
        return sum((count * price for _, count, price in self.lines), Decimal(0))


def order(number: int, draw: random.Random) -> Order:
    return Order(
        number=number,
        customer=f"{draw.choice(WORDS)}.{draw.choice(WORDS)}{draw.randrange(5000)}@example.com",
        placed=datetime(2026, 1, 1) + timedelta(seconds=draw.randrange(27_000_000)),
        lines=[
            (f"SKU-{draw.randrange(9000):05d}", draw.randint(1, 9), Decimal(draw.randrange(99, 99_999)) / 100)
            for _ in range(draw.randint(1, 6))
        ],
        note=" ".join(draw.choices(WORDS, k=draw.randrange(12))),
    )


def main() -> None:
    draw = random.Random(20)
    orders = [order(number, draw) for number in range(ORDERS)]
    texts = [json.dumps({**vars(o), "total": o.total}, default=str) for o in orders]
    parsed = [json.loads(text) for text in texts[: ORDERS // 2]]
    spent: collections.defaultdict[str, Decimal] = collections.defaultdict(Decimal)
    for o in orders:
        spent[o.customer] += o.total

    table = sqlite3.connect(":memory:")
    table.execute("CREATE TABLE line (number INTEGER, sku TEXT, count INTEGER, price REAL, customer TEXT)")
    table.executemany(
        "INSERT INTO line VALUES (?, ?, ?, ?, ?)",
        ((o.number, sku, n, float(price), o.customer) for o in orders for sku, n, price in o.lines),
    )
    table.execute("CREATE INDEX by_sku ON line (sku, number)")
    sold = table.execute("SELECT sku, sum(count * price) FROM line GROUP BY sku").fetchall()

    level, readings = 20.0, array.array("d")
    for _ in range(READINGS):  # a sensor's random walk, rounded as sensors do
        level += draw.uniform(-0.1, 0.1)
        readings.append(round(level, 2))
    means = array.array("f", (sum(readings[i : i + 60]) / 60 for i in range(0, READINGS, 60)))

    print("ready", flush=True)
    sys.stdin.read()
    print(len(parsed), len(spent), len(sold), len(means))


if __name__ == "__main__":
    main()
