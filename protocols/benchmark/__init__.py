"""What the protocol costs on the machine at hand: every stage, whole cohorts, Flower beside it, and fitted formulas."""
