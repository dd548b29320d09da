"""What only developers run: benches, trials, training of the shipped detector, fuzzing. Not in the wheel."""
