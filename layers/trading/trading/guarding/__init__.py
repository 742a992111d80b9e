"""What the edge keeps in Redis to guard itself: a copy of who is blocked, and counts of what it refused."""
