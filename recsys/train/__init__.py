"""Training on time-ordered data that does not leak: nothing learns from what it is asked to predict."""
