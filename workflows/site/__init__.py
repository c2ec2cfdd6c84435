"""What is where: asked of the hosts themselves, and judged from nothing else."""
