"""How positions are drawn: NUTS, where it starts, its geometry, and what its draws are worth."""
