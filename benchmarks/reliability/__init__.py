"""Bad input, faults, fuzzing and soak: what ``docs/reliability.md`` promises, measured."""
