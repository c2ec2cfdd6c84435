"""Many VMs: evacuation, bulk moves, rebalancing, and what schedules start."""
