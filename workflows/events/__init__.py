"""What workflows tell the world, and how it is delivered."""
