"""An orderly stop: asked once, never forced, and never of a VM that its host would forget."""

from __future__ import annotations

import pytest

from clouds.kvm.connection import Session
from clouds.kvm.errors import Refused
from clouds.kvm.stop import press, stopped
from models.migration import VmRef
from tests.unit.kvm.conftest import PlayedConnection, PlayedDomain

REF = VmRef(vm="web")


@pytest.fixture
def session(connection: PlayedConnection) -> Session:
    return Session("/socket", opener=lambda _: connection)  # type: ignore[arg-type,return-value]  # a played libvirt


def test_a_guest_is_asked_to_shut_down_and_waited_for(session: Session, domain: PlayedDomain) -> None:
    domain.persistent = 1
    assert not press(session, REF)
    assert domain.calls == [("shutdown",)]
    assert stopped(session, REF) is None
    domain.now = [5, 1]
    assert stopped(session, REF)
    assert press(session, REF), "asked again it is stopped already"
    assert domain.calls == [("shutdown",)]


def test_a_transient_vm_is_refused_and_not_touched(session: Session, domain: PlayedDomain) -> None:
    with pytest.raises(Refused, match="would forget it"):
        press(session, REF)
    assert domain.calls == []


def test_a_paused_guest_hears_no_button(session: Session, domain: PlayedDomain) -> None:
    domain.persistent, domain.now = 1, [3, 1]
    assert not press(session, REF)
    assert domain.calls == []


def test_a_vm_that_is_gone_is_stopped(session: Session, connection: PlayedConnection) -> None:
    connection.domains.clear()
    assert press(session, REF)
    assert stopped(session, REF)
