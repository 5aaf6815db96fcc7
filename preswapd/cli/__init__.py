"""preswapctl: what the operator types, and nothing that the server needs."""
