"""Wrong input is named: the field, the value, and what to write instead."""

from __future__ import annotations

import pytest
from temporalio.exceptions import ApplicationError

from models.migration import MigrateRequest, MigrationPolicy
from workflows import request

GOOD = {"vm": "counter", "to": "host-b"}


def complaint(raw: object) -> str:
    with pytest.raises(ApplicationError) as caught:
        request.read(raw)
    assert caught.value.type == "InvalidInput"
    assert caught.value.non_retryable
    return caught.value.message


def test_a_request_may_be_json_or_a_model() -> None:
    assert request.read(GOOD) == request.read(MigrateRequest(vm="counter", to="host-b"))
    assert request.read(GOOD | {"policy": {"lanes": 4}}).policy == MigrationPolicy(lanes=4)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (None, ["input: got nothing", '{"vm": "counter", "to": "host-b"}']),
        ("counter", ["input: got 'counter'"]),
        ([GOOD], ["input: got [{"]),
        (b"\x00", ["input: got b"]),
        ({"vm": "counter"}, ["to: missing"]),
        ({}, ["vm: missing", "to: missing"]),
        (GOOD | {"polcy": 1}, ["polcy: unknown field (value 1)", "did you mean 'policy'?", "vm, to, source, policy"]),
        (GOOD | {"zzz": 1}, ["zzz: unknown field", "remove it"]),
        (GOOD | {"to": 7}, ["to: got 7", "string"]),
        (GOOD | {"to": "host b"}, ["to: got 'host b'", "letters, digits"]),
        (GOOD | {"vm": "x" * 200}, ["vm: got 'xxx", "..."]),
        (GOOD | {"policy": 3}, ["policy: got 3"]),
        (GOOD | {"policy": {"lanes": "many"}}, ["policy.lanes: got 'many'", "integer"]),
        (GOOD | {"policy": {"lanes": 99}}, ["policy.lanes: got 99", "less than or equal to 16"]),
        (GOOD | {"policy": {"codec": "gzip"}}, ["policy.codec: got 'gzip'", "'zstd'"]),
        (GOOD | {"policy": {"max_downtime": 5}}, ["policy.max_downtime: unknown field", "'max_downtime_ms'"]),
        (GOOD | {"source": "host-b"}, ["to: 'host-b' is also the source"]),
    ],
)
def test_every_complaint_names_the_field_and_a_remedy(raw: object, words: list[str]) -> None:
    text = complaint(raw)
    for word in words:
        assert word in text


def test_the_site_comes_from_the_id_that_is_the_lock() -> None:
    assert request.site_of("vm/lab/counter", "ctl.lab", "counter") == "lab"
    assert request.site_of("vm/lab/counter", "replay-123", "counter") == "lab"


@pytest.mark.parametrize(
    ("workflow_id", "queue", "right"),
    [
        ("counter", "ctl.lab", "'vm/lab/counter'"),
        ("vm/lab/other", "ctl.lab", "'vm/lab/counter'"),
        ("vm/lab/counter/2", "somewhere", "'vm/<site>/counter'"),
        ("vm/attic/counter", "ctl.lab", "'ctl.attic', or with the id 'vm/lab/counter'"),
    ],
)
def test_a_wrong_id_is_answered_with_the_right_one(workflow_id: str, queue: str, right: str) -> None:
    with pytest.raises(ApplicationError, match="InvalidInput") as caught:
        request.site_of(workflow_id, queue, "counter")
    assert right in caught.value.message
