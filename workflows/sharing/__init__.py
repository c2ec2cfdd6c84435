"""What moves share: the site's bandwidth, how it is divided, and how a move joins."""
