"""Floor 1: adapters of the places where VMs live. They know nothing of Temporal and can be used alone."""
