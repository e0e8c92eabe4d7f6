"""What differential privacy costs: what happened, how it is counted, and how much noise a budget needs."""
