"""What every HTTP or WebSocket entry shares."""
