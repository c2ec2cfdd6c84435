"""Floor 2: one retryable side effect each; idempotent, heartbeating, cancellable. The floors below do the work."""
