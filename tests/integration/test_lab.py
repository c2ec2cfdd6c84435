"""The lab on real parts: namespaces, libvirt, QEMU, Temporal. A small lab of its own, without workers."""

from __future__ import annotations

import json
import select
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import libvirt
import pytest

from workers.lab.errors import LabError
from workers.lab.hosts import Host
from workers.lab.lab import Lab
from workers.lab.link import LinkSpec
from workers.lab.processes import in_network, marked
from workers.lab.settings import LabSettings

pytestmark = pytest.mark.real

PORT = 7000

ECHO = f"""
import socket
listener = socket.create_server(("10.77.0.2", {PORT}))
print("ready", flush=True)
connection, _ = listener.accept()
while data := connection.recv(65536):
    connection.sendall(data)
"""
ASK = f"""
import socket, sys, time
connection = socket.create_connection(("10.77.0.2", {PORT}), 60)
connection.settimeout(60)
for line in sys.stdin:
    begun = time.monotonic()
    connection.sendall(line.encode())
    connection.recv(65536)
    print(time.monotonic() - begun, flush=True)
"""
SINK = f"""
import socket
listener = socket.create_server(("10.77.0.2", {PORT}))
print("ready", flush=True)
connection, _ = listener.accept()
while connection.recv(65536):
    pass
connection.sendall(b"done")
"""
POUR = f"""
import socket, sys, time
connection = socket.create_connection(("10.77.0.2", {PORT}), 60)
begun = time.monotonic()
connection.sendall(bytes(int(sys.argv[1])))
connection.shutdown(socket.SHUT_WR)
connection.recv(4)
print(time.monotonic() - begun, flush=True)
"""


@pytest.fixture(scope="module")
def small() -> Iterator[Lab]:
    lab = Lab(LabSettings(name="lt", port=12233))
    lab.down(purge=True)
    try:
        lab.up(hosts=2, workers=False)
        yield lab
    finally:
        lab.down(purge=True)


@pytest.fixture
def lab(small: Lab) -> Lab:
    """The small lab, whole and with plain links, whatever the test before did."""
    small.up(hosts=2, link=LinkSpec(), workers=False)
    small.heal()
    return small


@contextmanager
def inside(lab: Lab, host: str, program: str, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A Python program in the host's network namespace."""
    command = ["nsenter", f"--net=/run/netns/{lab.settings.namespace(host)}", sys.executable, "-c", program, *words]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def line(process: subprocess.Popen[str], within: float = 60) -> str | None:
    """The next line it prints, or None."""
    assert process.stdout is not None
    if not select.select([process.stdout], [], [], within)[0]:
        return None
    return process.stdout.readline().strip()


class Talk:
    """One TCP connection from host-a to an echo on host-b."""

    def __init__(self, asking: subprocess.Popen[str]) -> None:
        self.asking = asking

    def ask(self) -> None:
        assert self.asking.stdin is not None
        self.asking.stdin.write("x\n")
        self.asking.stdin.flush()

    def answer(self, within: float) -> float | None:
        """Seconds the round trip took; None when there was no answer."""
        text = line(self.asking, within)
        return float(text) if text else None


@contextmanager
def talk(lab: Lab) -> Iterator[Talk]:
    with inside(lab, "host-b", ECHO) as echo:
        assert line(echo) == "ready"
        with inside(lab, "host-a", ASK) as asking:
            talk = Talk(asking)
            talk.ask()
            assert talk.answer(60) is not None
            yield talk


def pour(lab: Lab, size: int) -> float:
    """Seconds that `size` bytes take from host-a to host-b."""
    with inside(lab, "host-b", SINK) as sink:
        assert line(sink) == "ready"
        with inside(lab, "host-a", POUR, str(size)) as source:
            text = line(source)
            assert text
            return float(text)


def domains(lab: Lab, host: str) -> list[str]:
    connection = libvirt.open(lab.settings.libvirt_uri(host))
    try:
        return [domain.name() for domain in connection.listAllDomains()]
    finally:
        connection.close()


def leftovers(lab: Lab) -> list[str]:
    """What the machine still has of the lab."""
    found = [str(process.pid) for process in marked(lab.settings.folder) | in_network(lab.network.namespaces())]
    for host in ("host-a", "host-b", "host-c"):
        found += [str(process.pid) for process in Host(lab.settings, host).processes()]
    found += lab.network.namespaces()
    return found + [text for text in Path("/proc/mounts").read_text().splitlines() if "/nc-lt-" in text]


def test_a_lab_goes_up_answers_and_is_up_again_at_once(lab: Lab) -> None:
    status = lab.status()
    assert status.up
    assert [host.name for host in status.hosts] == ["host-a", "host-b"]
    pids = status.parts
    assert lab.up(workers=False).parts == pids
    url = f"http://127.0.0.1:{lab.settings.http_port}/api/v1/namespaces/default"
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=10) as answer:
        config = json.load(answer)["config"]
    assert config["workflowExecutionRetentionTtl"] == "2592000s"
    assert "VmId" in config["customSearchAttributeAliases"].values()


def test_each_host_is_another_machine_to_libvirt(lab: Lab) -> None:
    seen = set()
    for host in ("host-a", "host-b"):
        connection = libvirt.open(lab.settings.libvirt_uri(host))
        assert connection.getHostname() == host
        seen.add(connection.getCapabilities().split("<uuid>")[1].split("<")[0])
        connection.close()
    assert len(seen) == 2


def test_a_lab_adds_no_interface_to_the_machine_itself(lab: Lab) -> None:
    lab.link(LinkSpec.parse(delay="1ms"))
    names = {name for _, name in socket.if_nameindex()}
    assert not {name for name in names if name.startswith(("host-", "br0", "eth0."))}


def test_a_part_that_was_killed_is_started_again_alone(lab: Lab) -> None:
    for name in ("host-a.libvirtd", "temporal"):
        before = lab.pid_of(name)
        lab.kill(name)
        assert not lab.status().up
        assert lab.start(name) != before
        assert lab.status().up


def test_up_repairs_a_lab_of_which_everything_was_killed(lab: Lab) -> None:
    lab.boot_guest("orphan", "host-a", memory_mib=256)
    lab.link(LinkSpec.parse("1gbit", "1ms"))
    for name in lab.status().parts:
        lab.kill(name)
    assert "orphan" in lab.guests()["host-a"]
    assert lab.up(workers=False).up
    assert lab.guests() == {"host-a": (), "host-b": ()}
    assert domains(lab, "host-a") == []
    assert lab.status().link == LinkSpec.parse("1gbit", "1ms")


def test_up_repairs_a_host_that_lost_its_network(lab: Lab) -> None:
    subprocess.run(["ip", "netns", "del", lab.settings.namespace("host-b")], check=True, timeout=20)
    assert not lab.status().up
    assert lab.up(workers=False).up
    with talk(lab):
        pass


def test_down_leaves_nothing_even_of_a_killed_lab_and_up_follows(lab: Lab) -> None:
    lab.up(hosts=3, link=LinkSpec.parse(delay="1ms"), workers=False)
    lab.boot_guest("left", "host-c", memory_mib=256)
    for name in ("host-a.keeper", "host-c.libvirtd", "temporal", "wire"):
        lab.kill(name)
    lab.down()
    assert leftovers(lab) == []
    assert not lab.status().up
    lab.down()
    assert lab.up(hosts=2, workers=False).up


def test_the_rate_of_the_link_is_what_was_asked(lab: Lab) -> None:
    lab.link(LinkSpec.parse("40mbit"))
    before = lab.counters("host-a")
    size = 10_000_000
    rate = size * 8 / pour(lab, size) / 1e6
    assert 20 < rate < 44  # never faster; slower only as far as a loaded machine needs
    assert lab.counters("host-a").tx_bytes - before.tx_bytes > size


def test_a_cut_stalls_a_connection_and_healing_resumes_it(lab: Lab) -> None:
    with talk(lab) as talking:
        lab.cut("host-a")
        assert [host.cut for host in lab.status().hosts] == [True, False]
        talking.ask()
        assert talking.answer(1) is None
        assert talking.asking.poll() is None
        lab.heal("host-a")
        assert talking.answer(60) is not None


def test_delay_comes_and_goes_while_a_connection_lives(lab: Lab) -> None:
    with talk(lab) as talking:
        lab.link(LinkSpec.parse("100mbit", "60ms"))
        talking.ask()
        delayed = talking.answer(60)
        assert delayed is not None
        assert delayed >= 0.12  # once each way
        lab.link(LinkSpec())
        assert any(trip is not None and trip < 0.12 for trip in trips(talking, 20))
        assert "wire" not in lab.status().parts


def trips(talking: Talk, count: int) -> Iterator[float | None]:
    for _ in range(count):
        talking.ask()
        yield talking.answer(60)


def test_a_cut_outlives_a_change_of_the_link(lab: Lab) -> None:
    lab.cut()
    lab.link(LinkSpec.parse(delay="5ms"))
    assert all(host.cut for host in lab.status().hosts)
    lab.link(LinkSpec())
    assert all(host.cut for host in lab.status().hosts)


def test_bytes_arrive_unharmed_through_loss(lab: Lab) -> None:
    lab.link(LinkSpec.parse("100mbit", "2ms", "1%"))
    assert pour(lab, 2_000_000) > 0


def test_a_guest_boots_beats_and_finds_its_memory_sound(lab: Lab) -> None:
    guest = lab.boot_guest("web", "host-b", memory_mib=256, fill=32, dirty=2)
    assert lab.guests() == {"host-a": (), "host-b": ("web",)}
    assert Path(f"/proc/{lab.pid_of('host-b.qemu.web')}").exists()
    with lab.heartbeats("web", from_start=True) as heard:
        story = heard.wait_for(lambda story: story.checks >= 2, 90, "second walk")
    assert story.unbroken
    assert (story.boot_ids, story.pids, story.digests) == ((guest.boot_id,), (guest.pid,), (guest.digest,))
    with pytest.raises(LabError, match="already has a guest web"):
        lab.boot_guest("web", "host-b")
    lab.destroy_guest("web")
    assert lab.guests() == {"host-a": (), "host-b": ()}


def test_libvirtd_killed_under_a_guest_finds_it_again(lab: Lab) -> None:
    lab.boot_guest("kept", "host-a", memory_mib=256)
    with lab.heartbeats("kept") as heard:
        lab.kill("host-a.libvirtd")
        lab.start("host-a.libvirtd")
        assert domains(lab, "host-a") == ["kept"]
        story = heard.wait_for(lambda story: story.beats >= 10, 60, "tenth beat")
    assert story.unbroken
    lab.destroy_guest("kept")


def test_wrong_names_are_answered_with_the_right_ones(lab: Lab) -> None:
    with pytest.raises(LabError, match=r"no host 'host-z'.*host-a, host-b"):
        lab.cut("host-z")
    with pytest.raises(LabError, match=r"no part 'host-a\.engine'.*host-a.libvirtd"):
        lab.pid_of("host-a.engine")
    with pytest.raises(LabError, match="hosts: 9 is out of range"):
        lab.up(hosts=9)


def test_a_second_lab_on_the_same_port_is_refused_and_the_first_goes_on(lab: Lab) -> None:
    other = Lab(LabSettings(name="lt2", port=lab.settings.port))
    try:
        with pytest.raises(LabError, match=f"{lab.settings.port}.*NOVACRON_LAB_PORT"):
            other.up(workers=False)
    finally:
        other.down(purge=True)
    assert lab.status().up
