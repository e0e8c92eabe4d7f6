"""What a deployment gives away: attacks to run against one's own."""
