"""On-premises KVM hosts through libvirt. Modules by idea: `connection`, `inventory`, `sheet`, `identity`,
`admission`, `disks`, `decision`, `convergence`, `progress`, `migration`, `leftover`, `errors`. Only `connection`
imports libvirt, and late, so that a process without libvirt can still import this package."""
