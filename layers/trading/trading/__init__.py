"""The shared layer of the order-execution backend: domain, use cases and adapters."""
