"""Where orders are executed."""
