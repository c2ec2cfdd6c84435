"""Tests with isolated copies, while a move to a cloud waits for its cut-over."""

from __future__ import annotations

from typing import Any

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError

from models.cloud_move import CloudMoveRequest, TestCutOver
from workflows import errors, request
from workflows.calls.cloud import CloudSite, SourceHost
from workflows.cloud.copying import Copying
from workflows.cloud.crossing import Crossing
from workflows.cloud.outfit import Outfit
from workflows.cloud.readiness import Readiness
from workflows.cloud.steered import Copy
from workflows.lasting import to_the_end

_TEST_EXAMPLE = '{"network": {"subnet": "subnet-1", "security_groups": ["sg-1"]}}'


class Trials(Readiness):
    """Base of MoveToCloud, which sets these."""

    _wanted: CloudMoveRequest
    _host: SourceHost
    _cloud: CloudSite
    _outfit: Outfit

    def __init__(self) -> None:
        super().__init__()
        self._copy: Copying | None = None
        self._crossing: Crossing | None = None
        """The attempt that went well, or is under way."""
        self._test: TestCutOver | None = None
        self._tested = ""
        self._tests = 0

    def _goes_to(self) -> str:
        return self._wanted.to

    def _copied(self) -> Copy | None:
        return self._copy

    def _instance_id(self) -> str:
        return self._crossing.instance if self._crossing else ""

    def _fixed(self) -> float:
        return super()._fixed() + self._outfit.seconds

    def _beside(self) -> bool:
        return self._test is not None

    async def _do_beside(self) -> None:
        assert self._test is not None
        assert self._copy is not None
        wish, self._tests = self._test, self._tests + 1
        self._enter("testing", "booting an isolated copy; the VM runs on at its source")
        trial = Crossing(self._wanted, self._host, self._cloud, self._copy, self._outfit, f"test-{self._tests}")
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
        if self._wanted.prepare:
            raise self._refused(
                "test_cut_over",
                "the guest is prepared at the cut-over, when it is off: what is in the cloud now is not",
            )
        if self._stage != "waiting" or self._copy is None or not self._copy.disks:
            raise self._refused(
                "test_cut_over", f"the move is {self._stage}; a test needs one that waits (cut_over manual, at, window)"
            )
