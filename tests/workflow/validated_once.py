"""The sandbox that workflows run in, with each workflow validated once per test session, not once per worker.

Validation loads all of workflows/ anew for every workflow a worker serves: half a second and more for each worker of
a test. The runs themselves are sandboxed as in production.
"""

from __future__ import annotations

from typing import Any

from temporalio.worker import WorkflowInstance, WorkflowInstanceDetails, WorkflowRunner

from workflows.plugin import sandboxed


class ValidatedOnce(WorkflowRunner):
    def __init__(self) -> None:
        self._sandbox = sandboxed(None)
        self._validated: set[type] = set()

    def prepare_workflow(self, defn: Any) -> None:
        if defn.cls not in self._validated:
            self._sandbox.prepare_workflow(defn)
            self._validated.add(defn.cls)

    def create_instance(self, det: WorkflowInstanceDetails) -> WorkflowInstance:
        return self._sandbox.create_instance(det)


VALIDATED_ONCE = ValidatedOnce()
