"""What masks give away: who holds which coordinates, and what follows from it about labels, weights and updates."""
