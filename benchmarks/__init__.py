"""What the documentation claims, measured: one folder per subject, one command each."""
