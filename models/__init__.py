"""Floor 0: frozen, bounded types that cross a boundary. Nothing here imports another floor or does I/O."""
