"""Where figures come from: one file a source. A collector is a callable; what it raises is an alert of its own."""
