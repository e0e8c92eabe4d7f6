"""What the final model gives away: whether somebody's example was among those that it learnt."""
