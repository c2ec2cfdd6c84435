"""What all moves into a cloud have besides: tests with isolated copies, while they wait for their cut-over, and the
instance that came of it."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError

from models.cloud_move import IntoCloudRequest, TestCutOver
from workflows import errors, request
from workflows.calls.cloud import CloudSite
from workflows.cloud.launching import Launching
from workflows.cloud.undertaking import Undertaking
from workflows.lasting import to_the_end

_TEST_EXAMPLE = '{"network": {"subnet": "subnet-1", "security_groups": ["sg-1"]}}'


class Trials(Undertaking):
    """Base of MoveToCloud and MoveBetweenClouds, which set these."""

    _wanted: IntoCloudRequest
    _cloud: CloudSite

    def __init__(self) -> None:
        super().__init__()
        self._crossing: Launching | None = None
        """The attempt that went well, or is under way."""
        self._test: TestCutOver | None = None
        self._tested = ""
        self._tests = 0

    @abstractmethod
    def _trial(self, name: str) -> Launching:
        """An attempt of that name, of what is in the cloud now."""

    def _goes_to(self) -> str:
        return self._wanted.to

    def _instance_id(self) -> str:
        return self._crossing.instance if self._crossing else ""

    def _undone(self) -> None:
        self._crossing = None

    async def _still_runs(self, if_not: str) -> bool:
        """Nothing of the source is removed unless its instance is seen to run."""
        assert self._crossing is not None
        try:
            good = (await self._cloud.check(self._crossing.instance, None)).good
        except ActivityError:
            good = False
        if not good:
            self._chronicle.note(f"{if_not}: {self._crossing.instance} is not seen to run")
        return good

    def _beside(self) -> bool:
        return self._test is not None

    async def _do_beside(self) -> None:
        assert self._test is not None
        wish, self._tests = self._test, self._tests + 1
        self._enter("testing", "booting an isolated copy; the VM runs on at its source")
        trial = self._trial(f"test-{self._tests}")
        try:
            said = await trial.start(wish.network, wish.verify, f"{self._wanted.vm}-test", self._obey)
            told = f"the test went well: {said}"
        except ActivityError as error:
            told = f"the test failed: {errors.explain(error)[1]}"
        except ApplicationError as error:
            told = f"the test failed: {error.message}"
        finally:
            await to_the_end(trial.drop_test(), on_cancel=lambda: None)
        self._chronicle.note(told)
        self._test, self._tested, self._cut_now = None, told, self._cut_now
        self._enter("waiting", told)

    @workflow.update(
        description="Boot an isolated copy of what is in the cloud, check it and terminate it; the VM runs on at its "
        "source. Argument: an object with network (subnet and security_groups) and, if wanted, verify"
    )
    async def test_cut_over(self, raw: dict[str, Any]) -> str:
        self._test, self._tested = request.read_as(TestCutOver, raw, _TEST_EXAMPLE), ""
        await workflow.wait_condition(lambda: self._tested != "" or self._stage not in ("waiting", "testing"))
        return self._tested or f"not tested: the move is {self._stage}"

    @test_cut_over.validator
    def _can_test(self, raw: dict[str, Any]) -> None:
        request.read_as(TestCutOver, raw, _TEST_EXAMPLE)
        copy = self._copied()
        if self._stage != "waiting" or copy is None or not copy.disks:
            raise self._refused(
                "test_cut_over", f"the move is {self._stage}; a test needs one that waits (cut_over manual, at, window)"
            )
