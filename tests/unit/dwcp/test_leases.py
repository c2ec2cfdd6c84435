"""One contract for every lease store: one holder at most, and tokens that only grow, whatever dies in the middle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dwcp.consensus import Held, LeaseStore, Lost, StoreUnavailable, open_store
from models.lease import HoldLease, Lease, LeaseQuery, LeaseSettings, TakeLease
from tests.unit.dwcp.postgres_server import postgres

UUID = "5b1c6b0e-6f5e-4c53-9f0e-5d0a7b6f9a01"
OTHER = "5b1c6b0e-6f5e-4c53-9f0e-5d0a7b6f9a02"
ROOT = Path(__file__).resolve().parents[3]

Opener = Callable[[], LeaseStore]


@pytest.fixture(scope="module")
def dsn() -> Iterator[str]:
    with postgres() as found:
        yield found


@pytest.fixture(params=["sqlite", "postgres"])
def reach(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[LeaseSettings, dict[str, str]]:
    """An empty store: settings and environment to open it with."""
    if request.param == "sqlite":
        return LeaseSettings(file=f"{tmp_path}/state/leases.db"), {}
    dsn: str = request.getfixturevalue("dsn")
    import psycopg

    with psycopg.connect(dsn) as connection:
        connection.execute("DROP TABLE IF EXISTS novacron_leases, novacron_tokens")
    return LeaseSettings(store="postgres"), {"NOVACRON_LEASES_DSN": dsn}


@pytest.fixture
def store(reach: tuple[LeaseSettings, dict[str, str]]) -> LeaseStore:
    return open_store(*reach)


def take(
    operation: str = "run-1", *, lock: str = "", uuid: str = UUID, seconds: float = 60, above: int = 0
) -> TakeLease:
    return TakeLease(
        site="s", uuid=uuid, vm="web", host="host-a", lock=lock or operation, operation=operation, seconds=seconds,
        above=above,
    )  # fmt: skip


def held(lease: Lease, *, host: str | None = None, operation: str = "", seconds: float = 60) -> HoldLease:
    return HoldLease(
        site="s", uuid=lease.uuid, operation=operation or lease.operation, token=lease.token, host=host, seconds=seconds
    )


def test_the_first_taker_makes_the_record(store: LeaseStore) -> None:
    lease = store.take(take())
    assert (lease.host, lease.token, lease.operation) == ("host-a", 1, "run-1")
    assert store.look("s", UUID) == lease
    assert store.look("s", OTHER) is None
    assert store.look("elsewhere", UUID) is None


def test_a_second_taker_is_refused_and_told_who_holds_it(store: LeaseStore) -> None:
    lease = store.take(take())
    with pytest.raises(Held, match=r"web is held by operation run-1 .* under token 1") as caught:
        store.take(take("run-2"))
    assert caught.value.lease == lease
    assert store.look("s", UUID) == lease


def test_the_holder_that_asks_again_keeps_its_token(store: LeaseStore) -> None:
    assert store.take(take()) == store.take(take())


def test_tokens_grow_across_release_and_expiry_and_over_all_vms(store: LeaseStore) -> None:
    first = store.take(take("run-1"))
    store.release(held(first))
    second = store.take(take("run-2", seconds=0))  # has expired at once
    elsewhere = store.take(take("run-3", uuid=OTHER))
    third = store.take(take("run-4"))
    assert [first.token, second.token, elsewhere.token, third.token] == [1, 2, 3, 4]


def test_a_dead_run_under_the_same_lock_does_not_stand_in_the_way(store: LeaseStore) -> None:
    dead = store.take(take("run-1", lock="vm/s/web"))
    assert store.take(take("run-2", lock="vm/s/web")).token > dead.token


def test_a_store_made_anew_starts_above_what_hosts_have_seen(store: LeaseStore) -> None:
    assert store.take(take(above=41)).token == 42
    assert store.take(take("run-2", uuid=OTHER)).token == 43


def test_renewing_holds_it_longer_and_also_works_late(store: LeaseStore) -> None:
    lease = store.take(take(seconds=0))
    renewed = store.renew(held(lease, seconds=60))
    assert renewed.expires > lease.expires
    assert renewed.token == lease.token
    with pytest.raises(Held):
        store.take(take("run-2"))


def test_a_hand_over_names_the_new_owner_and_the_next_taker_finds_it(store: LeaseStore) -> None:
    lease = store.take(take())
    assert store.hand_over(held(lease, host="host-b")).host == "host-b"
    store.release(held(lease))
    assert store.take(take("run-2")).host == "host-b"


def test_a_release_may_hand_over_in_the_same_breath_and_may_be_repeated(store: LeaseStore) -> None:
    lease = store.take(take())
    done = store.release(held(lease, host="host-b"))
    assert done is not None
    assert (done.host, done.operation, done.token, done.expires) == ("host-b", "", lease.token, 0)
    assert store.release(held(lease, host="host-b")) == done


@pytest.mark.parametrize("change", ["renew", "hand_over", "release"])
def test_an_old_token_changes_nothing(store: LeaseStore, change: str) -> None:
    old = store.take(take("run-1", seconds=0))
    new = store.take(take("run-2"))
    with pytest.raises(Lost, match=r"operation run-1 with token 1 does not hold .* has token 2, operation run-2"):
        getattr(store, change)(held(old, host="host-c"))
    assert store.look("s", UUID) == new


@pytest.mark.parametrize("change", ["renew", "hand_over"])
def test_what_was_released_or_never_taken_cannot_be_held(store: LeaseStore, change: str) -> None:
    lease = Lease(site="s", uuid=UUID, vm="web", host="host-a", token=1, operation="run-1")
    with pytest.raises(Lost, match="has no record"):
        getattr(store, change)(held(lease))
    store.release(held(store.take(take())))
    with pytest.raises(Lost, match="operation none"):
        getattr(store, change)(held(lease))


def test_records_are_listed_by_pages_of_one_site(store: LeaseStore) -> None:
    uuids = [f"{number:08d}-0000-4000-8000-000000000000" for number in range(5)]
    for number, uuid in enumerate(uuids):
        store.take(take(f"run-{number}", uuid=uuid))
    store.take(take("far").model_copy(update={"site": "elsewhere"}))
    first = store.list(LeaseQuery(site="s", limit=3))
    rest = store.list(LeaseQuery(site="s", after=first.leases[-1].uuid, limit=3))
    assert [lease.uuid for lease in (*first.leases, *rest.leases)] == uuids
    assert (first.more, rest.more, rest.highest) == (True, False, 6)


def test_of_many_that_take_at_once_one_holds_at_any_time_and_tokens_strictly_grow(
    reach: tuple[LeaseSettings, dict[str, str]],
) -> None:
    """Threads with a store each; who gets the VM checks that he is alone, and lets go."""
    tokens: list[int] = []
    alone = threading.Lock()

    def work(name: int) -> int:
        store, won = open_store(*reach), 0
        for turn in range(12):
            try:
                lease = store.take(take(f"run-{name}-{turn}"))
            except Held:
                continue
            assert alone.acquire(blocking=False), "two hold the VM at once"
            tokens.append(lease.token)
            alone.release()
            store.release(held(lease))
            won += 1
        return won

    with ThreadPoolExecutor(8) as pool:
        won = sum(pool.map(work, range(8)))
    assert won == len(tokens) > 0
    assert tokens == sorted(set(tokens))


Step = tuple[str, int]
STEPS = st.lists(
    st.tuples(st.sampled_from(["take", "take expired", "renew", "hand_over", "release"]), st.integers(0, 2)),
    max_size=25,
)


@given(STEPS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_three_operations_do_in_turn_at_most_one_holds_and_tokens_grow(
    tmp_path_factory: pytest.TempPathFactory, steps: list[Step]
) -> None:
    store = open_store(LeaseSettings(file=f"{tmp_path_factory.mktemp('any')}/leases.db"), {})
    mine: dict[int, Lease] = {}
    highest = 0
    for what, who in steps:
        before = store.look("s", UUID)
        try:
            if what.startswith("take"):
                seconds = 0 if what == "take expired" else 60
                mine[who] = store.take(take(f"run-{who}", seconds=seconds))
                assert mine[who].token >= highest
            elif who in mine:
                getattr(store, what)(held(mine[who], host=f"host-{who}"))
            refused = False
        except (Held, Lost):
            refused = True
        now = store.look("s", UUID)
        assert not refused or now == before, f"{what} was refused and yet changed the record"
        assert (now.token if now else 0) >= highest
        highest = now.token if now else 0
        holders = [
            who for who, lease in mine.items() if now and (lease.token, lease.operation) == (now.token, now.operation)
        ]
        assert len(holders) <= 1


TAKER = """
import sys
from dwcp.consensus import open_store
from models.lease import LeaseSettings, TakeLease, HoldLease
settings = LeaseSettings.model_validate_json(sys.argv[1])
import os
store = open_store(settings, os.environ)
turn = 0
print("ready", flush=True)
while True:
    turn += 1
    mine = f"{sys.argv[3]}-{turn}"
    lease = store.take(TakeLease(site="s", uuid=sys.argv[2], vm="web", host="host-a", lock="l", operation=mine))
    print(lease.token, flush=True)
"""


def test_a_taker_killed_in_the_middle_leaves_a_store_that_goes_on(reach: tuple[LeaseSettings, dict[str, str]]) -> None:
    """Every token that was answered to somebody stays below all later ones."""
    configured, environment = reach
    told = [0]
    for name in ("first", "second", "third"):
        taker = subprocess.Popen(
            [sys.executable, "-c", TAKER, configured.model_dump_json(), UUID, name],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert taker.stdout is not None
        assert taker.stdout.readline() == "ready\n"
        seen = [int(taker.stdout.readline()) for _ in range(20)]
        taker.send_signal(signal.SIGKILL)
        seen += [int(line) for line in taker.stdout if line.endswith("\n")]
        taker.stdout.close()
        assert taker.wait(30) == -signal.SIGKILL
        assert seen == sorted(set(seen))
        assert seen[0] > max(told), "a token was given out twice"
        told += seen
    store = open_store(configured, environment)
    assert store.take(take("after", lock="l")).token > max(told)


def test_many_processes_may_make_the_store_at_once(reach: tuple[LeaseSettings, dict[str, str]]) -> None:
    configured, environment = reach
    takers = [
        subprocess.Popen(
            [sys.executable, "-c", TAKER, configured.model_dump_json(), UUID, f"taker-{number}"],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    tokens: list[int] = []
    for taker in takers:
        assert taker.stdout is not None
        assert taker.stdout.readline() == "ready\n"
        tokens += [int(taker.stdout.readline()) for _ in range(5)]
    for taker in takers:
        taker.kill()
        taker.communicate(timeout=30)
    assert len(set(tokens)) == len(tokens), "a token was given out twice"


def test_a_store_that_cannot_be_reached_says_so_and_hides_its_password(tmp_path: Path) -> None:
    file = tmp_path / "a folder"
    file.mkdir()
    with pytest.raises(StoreUnavailable, match="a folder cannot be used"):
        open_store(LeaseSettings(file=str(file)), {}).take(take())
    remote = LeaseSettings(store="postgres")
    with pytest.raises(StoreUnavailable, match="NOVACRON_LEASES_DSN is not set"):
        open_store(remote, {})
    away = {"NOVACRON_LEASES_DSN": f"host={tmp_path} user=nova password=hunter2"}
    with pytest.raises(StoreUnavailable, match="PostgreSQL cannot be used") as caught:
        open_store(remote, away).look("s", UUID)
    assert "hunter2" not in str(caught.value)
