"""Floor 4: processes. `host`, one per KVM host; `control`, one or more per site; and the lab."""
