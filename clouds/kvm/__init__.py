"""On-premises KVM hosts through libvirt. Modules by idea: `connection`, `inventory`, `sheet`, `identity`,
`admission`, `disks`, `decision`, `controller`, `stall`, `throttle`, `progress`, `migration`, `switch`, `arrival`,
`handover`, `parting`, `leftover`, `revival`, `errors`; the host as a cloud: `adapter` and `place`. Only `connection`
imports libvirt, and late, so that a process without libvirt can import this package."""
