"""The numbers in the README, one command each."""
