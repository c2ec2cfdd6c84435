"""Before a move: what would hold it back, what it would cost, and how it would go."""
