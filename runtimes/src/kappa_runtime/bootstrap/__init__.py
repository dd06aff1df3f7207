"""What runs inside an environment, one folder per language. Nothing here imports the rest of Kappa."""
