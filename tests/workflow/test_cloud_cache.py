"""Moves to a cloud that keeps bases: what stays is not removed, what is saved is told, and the cache is listed."""

from __future__ import annotations

import pytest
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import ApplicationError

from models.cloud_cache import CacheRequest
from novacron import NovaCron
from novacron.clouds import Clouds
from novacron.errors import Refused
from tests.workflow.fake_cloud import MIB, PLACE
from tests.workflow.fake_site import VM, FakeSite
from tests.workflow.test_move_to_cloud import at_home, begin, ended, failed, stands
from workflows.cloud.move_to_cloud import MoveToCloud

pytestmark = pytest.mark.temporal
BROKEN = ApplicationError("no answer from the bucket", type="Refused", non_retryable=True)


@pytest.fixture
def cached(site: FakeSite) -> FakeSite:
    site.cloud.cache = True
    return site


async def test_the_last_disk_of_a_move_stays_and_nothing_else_of_it(cached: FakeSite) -> None:
    cached.source.cloud.writes = [4 * MIB, MIB]
    async with cached.working():
        result = await ended(await begin(cached))
    assert result.kept_bases == (result.disks[0].disk,) == tuple(cached.cloud.bases)
    assert sorted(cached.cloud.things()) == sorted([result.instance, *cached.cloud.bases])
    assert [order.cached for order in cached.source.cloud.sends][:2] == [True, False], "only a whole disk starts so"


async def test_what_a_base_saved_is_told(cached: FakeSite) -> None:
    cached.cloud.bases, cached.cloud.disks = ["snap-base"], {"snap-base": 1}
    async with cached.working():
        result = await ended(await begin(cached, mode="cold"))
    assert (result.sent_bytes, result.saved_bytes) == (MIB, 7 * MIB)
    assert (result.disks[0].origin, result.disks[0].cache) == ("snap-base", "looked")
    assert result.kept_bases == ()
    assert "snap-base" in cached.cloud.disks, "the move removes what it made, and not what it started from"


@pytest.mark.parametrize(("cache", "looks"), [("read", True), ("off", False)])
async def test_a_request_may_leave_nothing_or_not_look_at_all(cached: FakeSite, cache: str, looks: bool) -> None:
    async with cached.working():
        result = await ended(await begin(cached, mode="cold", cache=cache))
    assert [order.cached for order in cached.source.cloud.sends] == [looks]
    assert result.kept_bases == ()
    assert cached.cloud.things() == [result.instance]


async def test_a_place_without_a_cache_is_not_asked(site: FakeSite) -> None:
    async with site.working():
        await ended(await begin(site, mode="cold"))
    assert not [entry for entry in site.journal if "bases" in entry]


async def test_bases_that_cannot_be_kept_are_a_note_and_are_removed_with_the_rest(cached: FakeSite) -> None:
    cached.at(cached.source, "keep_bases", error=BROKEN)
    async with cached.working():
        result = await ended(await begin(cached, mode="cold"))
    assert cached.cloud.things() == [result.instance]
    assert any("its disks stay not as bases for others" in note for note in result.notes)


async def test_a_move_that_is_given_up_keeps_nothing(cached: FakeSite) -> None:
    async with cached.working():
        move = await begin(cached, cut_over="manual")
        await stands(move, "waiting")
        await move.execute_update(MoveToCloud.cancel, "enough")
        await failed(move)
    at_home(cached)
    assert cached.source.cloud.settled[0].place == PLACE, "what a disk was being made from is not used any more"


async def test_a_dry_run_tells_what_bases_would_save_and_a_broken_cache_is_no_blocker(cached: FakeSite) -> None:
    cached.cloud.bases = ["snap-base"]
    async with cached.working():
        plan = (await ended(await begin(cached, dry_run=True))).plan
        assert plan is not None
        assert (plan.cached, plan.saved_bytes, plan.send_bytes) == (True, 7 * MIB, 8 * MIB)
        assert plan.seconds[1] == pytest.approx(MIB / 12_500_000, abs=0.1)
        cached.at(cached.source, "weigh_bases", error=BROKEN)
        plan = (await ended(await begin(cached, dry_run=True))).plan
    assert plan is not None
    assert (plan.ok, plan.saved_bytes) == (True, None)
    assert "no answer from the bucket" in plan.cache


async def test_what_is_kept_is_listed_and_removed_by_its_place(cached: FakeSite) -> None:
    cached.cloud.bases, cached.cloud.disks = ["snap-base"], {"snap-base": 1}
    clouds = Clouds(NovaCron(cached.client, cached.name))
    async with cached.working():
        assert [base.disk for base in (await clouds.cache(CacheRequest(place=PLACE))).bases] == ["snap-base"]
        report = await clouds.cache(CacheRequest(place=PLACE, action="prune", everything=True))
        assert [base.disk for base in report.removed] == ["snap-base"]
        with pytest.raises(Refused, match="no cloud account"):
            await clouds.cache(CacheRequest(place="aws:us-east-1"))
    assert cached.cloud.disks == {}


async def test_a_request_that_does_not_fit_names_the_field(cached: FakeSite) -> None:
    async with cached.working():
        with pytest.raises(WorkflowFailureError) as caught:
            await cached.client.execute_workflow(
                "novacron.CloudCache", {"place": PLACE, "everything": True}, id=f"cache/{VM}", task_queue=cached.queue
            )
    assert isinstance(caught.value.cause, ApplicationError)
    assert caught.value.cause.type == "InvalidInput"
    assert "everything goes with action" in str(caught.value.cause)
