"""The fakes offer exactly the activities the real workers offer, under the same names and with the same types."""

from __future__ import annotations

import inspect
import typing

import pytest
from temporalio import activity
from temporalio.testing import WorkflowEnvironment

from activities.cloud import CloudActivities
from activities.cloud_arrivals import CloudArrivalActivities
from activities.cloud_bases import CloudBaseActivities
from activities.cloud_cache import CloudCacheActivities
from activities.cloud_disks import CloudDiskActivities
from activities.cloud_instances import CloudInstanceActivities
from activities.cloud_transfers import CloudTransferActivities
from activities.control import ControlActivities
from activities.events import EventActivities
from activities.fleet import FleetHostActivities
from activities.host import HostActivities
from activities.planning import PlanningActivities
from activities.recovery import RecoveryActivities
from activities.steering import SteeringActivities
from activities.switching import SwitchActivities
from activities.telling import TellActivities
from bench.simulated.host import SimulatedFleetHost, SimulatedHost
from models.host import HostSettings
from tests.workflow.fake_bring import FakeArrivals, FakeInstances
from tests.workflow.fake_cloud import FakeBases, FakeCache, FakeCloud, FakeCloudDisks
from tests.workflow.fake_events import FakeEvents, FakeTell
from tests.workflow.fake_host import FakeFleetHost, FakeSteering, FakeSurvivor, FakeSwitch
from tests.workflow.fake_planning import FakePlanning
from tests.workflow.fake_site import (
    FakeControl,
    FakeHost,
    activities_of,
)
from tests.workflow.fake_transfer import FakeTransfers
from workers.host import build

PAIRS = [
    (FakeHost, HostActivities),
    (FakeControl, ControlActivities),
    (FakePlanning, PlanningActivities),
    (FakeSurvivor, RecoveryActivities),
    (FakeEvents, EventActivities),
    (FakeTell, TellActivities),
    (FakeSteering, SteeringActivities),
    (FakeSwitch, SwitchActivities),
    (FakeFleetHost, FleetHostActivities),
    (FakeCloudDisks, CloudDiskActivities),
    (FakeCloud, CloudActivities),
    (FakeBases, CloudBaseActivities),
    (FakeCache, CloudCacheActivities),
    (FakeArrivals, CloudArrivalActivities),
    (FakeInstances, CloudInstanceActivities),
    (FakeTransfers, CloudTransferActivities),
    (SimulatedHost, HostActivities),
    (SimulatedFleetHost, FleetHostActivities),
]
OF_A_HOST = (
    HostActivities,
    PlanningActivities,
    RecoveryActivities,
    SteeringActivities,
    SwitchActivities,
    FleetHostActivities,
    CloudDiskActivities,
    CloudBaseActivities,
    CloudArrivalActivities,
)


def contract(of: type) -> dict[str, tuple[list[object], object]]:
    """Activity name -> (argument types, result type)."""
    found: dict[str, tuple[list[object], object]] = {}
    for method in activities_of(of):
        definition = activity._Definition.must_from_callable(method)
        function = inspect.unwrap(method)
        hints = typing.get_type_hints(function)
        result = hints.pop("return")
        found[str(definition.name)] = (list(hints.values()), result)
    return found


@pytest.mark.parametrize(("fake", "real"), PAIRS)
def test_fake_and_real_activities_have_one_contract(fake: type, real: type) -> None:
    assert contract(fake) == contract(real)
    assert contract(real)


async def test_a_host_worker_runs_every_activity_of_its_host(temporal: WorkflowEnvironment) -> None:
    settings = HostSettings(
        site="lab",
        host="host-a",
        migration_address="10.0.0.1",
        tls={"certificate": "/c", "key": "/k", "authority": "/a"},
    )
    worker = build(settings, temporal.client).config()
    registered = worker["activities"]
    offered = {each.__name__ for kind in OF_A_HOST for each in activities_of(kind)}
    assert {activity.__name__ for activity in registered} == offered
    at_once = worker["max_concurrent_activities"]
    assert at_once is not None
    assert at_once > settings.slots, "with all its moves under way it still takes other steps"


@pytest.mark.parametrize(("fake", "real"), PAIRS)
def test_a_method_has_one_name_in_fake_and_real(fake: type, real: type) -> None:
    assert [method.__name__ for method in activities_of(fake)] == [method.__name__ for method in activities_of(real)]
