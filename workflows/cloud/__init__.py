"""VMs that move to a cloud: copied in rounds while they run, cut over once, and never running twice."""
