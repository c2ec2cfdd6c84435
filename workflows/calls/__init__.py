"""What workflows ask of activities, as plain calls: each with its queue, deadlines and a summary people can read."""
