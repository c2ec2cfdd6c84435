"""What a host without a hypervisor measures and labels: PlanningActivities of one host of the fake site."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from temporalio import activity

from models.planning import Dirtying, LabelOrder, LabelReport, LinkSpeed, MeasureDirtying, ProbeLink, Range

MIB = 1 << 20


class FakePlanning:
    def __init__(self, host: str, enter: Callable[[str], Awaitable[None]]) -> None:
        self._host = host
        self._enter = enter
        self.dirtying = Dirtying(bytes_per_second=Range(low=MIB, likely=2 * MIB, high=4 * MIB), seconds=2)
        self.link = LinkSpeed(bytes_per_second=Range(low=90 * MIB, likely=100 * MIB, high=110 * MIB), lanes=2)
        self.labels: dict[str, str] = {}

    @activity.defn(name="novacron.measure_dirtying")
    async def measure_dirtying(self, order: MeasureDirtying) -> Dirtying:
        await self._enter("measure_dirtying")
        return self.dirtying

    @activity.defn(name="novacron.probe_link")
    async def probe_link(self, order: ProbeLink) -> LinkSpeed:
        await self._enter("probe_link")
        return self.link

    @activity.defn(name="novacron.label_vm")
    async def label_vm(self, order: LabelOrder) -> LabelReport:
        await self._enter("label_vm")
        kept = {key: value for key, value in self.labels.items() if key not in order.take}
        self.labels = {**kept, **order.give}
        return LabelReport(vm=order.vm.vm, host=self._host, labels=self.labels)
