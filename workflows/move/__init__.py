"""One VM moves: the story (migrate_vm), its parts in order, and what is judged on the way."""
