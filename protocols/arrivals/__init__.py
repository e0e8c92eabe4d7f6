"""What arrives out of step: flights, and the two ways in which a server keeps what they brought."""
