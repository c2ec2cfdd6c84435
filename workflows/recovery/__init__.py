"""After something went wrong: what is certain about the VM, and what may be repaired."""
