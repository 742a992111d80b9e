"""Where alerts are told: one file a kind of channel, the registry says which is which."""
